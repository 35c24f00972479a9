"""What the quickstart runs remotely."""
