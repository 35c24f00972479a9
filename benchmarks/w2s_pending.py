"""W2s: a million tasks pending in the client beside thirty thousand: what one costs in time and memory."""

from __future__ import annotations

from benchmarks._contender import Contender, Options, contenders
from benchmarks._measure import Promise, Row, interleave

FEW, MANY = 30_000, 1_000_000


def rows(options: Options) -> list[Row]:
    few, many = options.fewer(FEW), options.fewer(MANY)
    cost = Row(f"W2s {MANY:,} pending, cost of one", "µs", [Promise(f"ours, {FEW:,}", 1.5)])
    size = Row("W2s memory of one in the client", "bytes", [Promise("", 2048)])
    bytes_of: dict[str, float] = {}

    def measure(contender: Contender) -> float:
        answer = contender.ask("pending", many)
        contender.close()  # memory that is there already would not be counted again
        bytes_of[contender.name] = answer["bytes"]
        size.figures.setdefault(contender.name, []).append(answer["bytes"])
        return float(answer["cost"])

    with contenders(options) as found:
        ours = found["ours"]
        measures = {
            "limit": lambda: measure(found["limit"]),
            f"ours, {FEW:,}": lambda: sorted(ours.ask("pending", few)["cost"] for _ in range(3))[1],
            "ours": lambda: measure(ours),
        }
        interleave(cost, measures, max(1, options.rounds // 2))
    return [cost, size]
