"""Packages: from a URL to a ready environment."""
