"""Ours beside the peers and the physical limits, interleaved in one run: ``python -m benchmarks``.

A workload is a module ``w*.py`` with ``rows(options)``. A contender is a program under ``contenders/`` that runs in a process (and,
for peers, an environment) of its own and is asked for one figure at a time over a pipe: no contender's imports, garbage or threads
are in the way of another's.
"""
