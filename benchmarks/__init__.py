"""Ours beside the peers and the physical limits, interleaved in one run: ``python -m benchmarks``."""
