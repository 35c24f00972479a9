"""Packages as tar archives compressed with Zstandard."""
