"""Calls: services, submission, futures, streams, maps."""
