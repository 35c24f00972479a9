"""Packages as zip archives."""
