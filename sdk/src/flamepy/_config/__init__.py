"""What the user configured: flame.yaml, the environment, the project, keywords."""
