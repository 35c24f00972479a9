"""Sessions on a Ray cluster."""
