"""Monte Carlo estimation of pi, and arrays large enough to be worth not copying."""

from __future__ import annotations

from typing import Any


def hits(samples: int, seed: int) -> int:
    """How many of so many random points of the unit square fall into the circle."""
    import numpy as np

    points = np.random.default_rng(seed).random((samples, 2))
    return int(((points**2).sum(axis=1) <= 1.0).sum())


def make_array(mebibytes: int) -> Any:
    """An array of that size; it stays in shared memory until somebody looks at it."""
    import numpy as np

    return np.arange(mebibytes << 17, dtype="f8")


def describe(array: Any) -> str:
    """Its size in words, by a library that only the tasks' environment has."""
    import humanize

    return f"{humanize.naturalsize(array.nbytes, binary=True)}, last element {array[-1]:.0f}"
