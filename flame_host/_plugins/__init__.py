"""Plugins: found, guarded, reported; what is on offer; who is told what happens."""
