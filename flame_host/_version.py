"""The version of all distributions; a module of its own, for those that are imported on the way to the host."""

__version__ = "0.1.0"
