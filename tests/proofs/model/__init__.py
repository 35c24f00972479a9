"""Models of the task path, explored exhaustively: `make prove`."""
