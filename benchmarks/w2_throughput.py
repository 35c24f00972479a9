"""W2: 30,000 no-op tasks submitted at once, their futures kept."""

from __future__ import annotations

from benchmarks._contender import PEERS, Contender, Options, contenders
from benchmarks._measure import Promise, Row, interleave

TASKS = 30_000
FEWER = {"dask": 10, "ray": 3}  # theirs take so long that a round would no longer be one moment; fewer cost them no more each


def rows(options: Options) -> list[Row]:
    row = Row(f"W2 {TASKS:,} tasks, cost of one", "µs", [Promise("limit", 2.0), Promise("ProcessPool", 0.2)])
    tasks = options.fewer(TASKS)

    def measure(contender: Contender) -> float:
        if contender.name == "limit":
            return float(contender.ask("pending", tasks)["cost"])
        return float(contender.ask("throughput", tasks // FEWER.get(contender.name, 1)))

    with contenders(options, *PEERS) as found:
        bare = {"limit without futures": lambda: found["limit"].ask("pending", tasks, True)["cost"]}
        measures = bare | {name: lambda one=one: measure(one) for name, one in found.items()}
        return [interleave(row, measures, options.rounds)]
