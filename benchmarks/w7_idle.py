"""W7: what an idle client with two workers holds in memory (PSS: its own gain and all its children) and uses of a processor.

The promise of 0 % is kept when it rounds to that: who measures runs, too.
"""

from __future__ import annotations

from functools import partial

from benchmarks._contender import PEERS, Contender, Options, contenders
from benchmarks._measure import Promise, Row, interleave

SECONDS = 5


def rows(options: Options) -> list[Row]:
    memory = Row("W7 memory, idle, 2 workers", "MiB", [Promise("", 60)])
    processor = Row("W7 processor time, idle", "% of one", [Promise("", 0.5)])

    def measure(contender: Contender) -> float:
        answer = contender.ask("idle", 1 if options.quick else SECONDS)
        contender.close()
        processor.figures.setdefault(contender.name, []).append(answer["cpu"])
        return float(answer["memory"])

    with contenders(options, *PEERS) as found:
        turns = {name: partial(measure, one) for name, one in found.items() if name != "limit"}
        interleave(memory, turns, 1 if options.quick else max(1, options.rounds // 2))
    return [memory, processor]
