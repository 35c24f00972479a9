"""W3: large arrays: one returned to the client, one handed from worker to worker, one put and read ten times."""

from __future__ import annotations

from functools import partial

from benchmarks._contender import Contender, Options, contenders
from benchmarks._measure import Promise, Row, interleave

LARGE, SMALL, READERS = 1024, 64, 10  # MiB, MiB, tasks
TIMES = 7


def rows(options: Options) -> list[Row]:
    large = 256 if options.quick else LARGE
    returned = Row(f"W3 {large} MiB returned", "ms", [Promise("ray", 0.6)])
    grown = Row("W3 memory the client gained by it", "MiB", [Promise("", large / 16)])
    passed = Row(f"W3 {SMALL} MiB from worker to worker", "ms", [Promise("ray", 0.6)])
    read = Row(f"W3 {large} MiB put, {READERS} readers", "ms", [Promise("ray", 0.6)])

    def give(contender: Contender) -> float:
        if contender.name == "limit":
            return 1e3 * float(contender.ask("copy", large, TIMES))
        answer = contender.ask("give", large, TIMES)
        grown.figures.setdefault(contender.name, []).append(answer["grown"])
        return 1e3 * float(answer["seconds"])

    def hand_over(contender: Contender) -> float:
        question = ("copy",) if contender.name == "limit" else ("hand_over",)
        return 1e3 * float(contender.ask(*question, SMALL, 2 * TIMES))

    def read_by_many(contender: Contender) -> float:
        return 1e3 * float(contender.ask("readers", large, READERS, TIMES))

    with contenders(options, "ray") as found:
        interleave(returned, {name: partial(give, one) for name, one in found.items()}, options.rounds)
        interleave(passed, {name: partial(hand_over, one) for name, one in found.items()}, options.rounds)
        turns = {name: partial(read_by_many, one) for name, one in found.items()}
        interleave(read, turns, options.rounds)
    return [returned, grown, passed, read]
