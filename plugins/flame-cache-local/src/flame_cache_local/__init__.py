"""Results and objects on this machine."""
