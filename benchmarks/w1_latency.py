"""W1: a warm no-op call, one at a time."""

from __future__ import annotations

from functools import partial

from benchmarks._contender import PEERS, Options, contenders
from benchmarks._measure import Promise, Row, interleave

CALLS = 2_000


def rows(options: Options) -> list[Row]:
    row = Row("W1 warm call, median", "µs", [Promise("limit", 2.0), Promise("ProcessPool", 0.35)])
    calls = options.fewer(CALLS)
    with contenders(options, *PEERS) as found:
        return [interleave(row, {name: partial(one.ask, "latency", calls) for name, one in found.items()}, options.rounds)]
