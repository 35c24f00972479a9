"""Packages on an HTTP server: http:// and https://."""
