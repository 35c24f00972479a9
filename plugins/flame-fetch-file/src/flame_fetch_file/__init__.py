"""Packages on a file system: file://."""
