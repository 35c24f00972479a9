"""Namespace of the generated code; it mirrors the package names of the protocol."""
