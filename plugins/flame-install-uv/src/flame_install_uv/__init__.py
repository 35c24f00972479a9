"""Environments made by uv."""
