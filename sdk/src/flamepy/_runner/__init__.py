"""The Runner and its executor."""
