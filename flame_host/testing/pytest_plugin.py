"""Fixtures for plugin authors; loaded by pytest on its own."""
