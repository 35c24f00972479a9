"""Ray: actors, as these are faster than its tasks."""

from __future__ import annotations

import os
import shutil
import statistics
import tempfile
import time
from typing import Any

from _serve import idle, latency, pss, resident, serve, throughput

BEFORE = pss(os.getpid())

import ray  # noqa: E402  what the client costs is counted from here


@ray.remote
class Actor:
    def call(self, a: int, b: int) -> Any:
        return a + b

    def make(self, mebibytes: int) -> None:
        import numpy

        self.array = numpy.ones(mebibytes << 17)

    def give(self) -> Any:
        return self.array

    def first(self, array: Any) -> float:
        return float(array[0])

    def total(self, array: Any) -> float:
        return float(array.sum())


class Reference:
    """What a Future of the others can."""

    __slots__ = ("ref",)

    def __init__(self, ref: Any) -> None:
        self.ref = ref

    def result(self) -> Any:
        return ray.get(self.ref)


def give(actors: Any, mebibytes: int, times: int) -> Any:
    ray.get(actors[0].make.remote(mebibytes))
    taken, before = [], resident()
    grown = 0
    for _ in range(times):
        begun = time.perf_counter()
        array = ray.get(actors[0].give.remote())
        assert array[[0, -1]].sum() == 2
        taken.append(time.perf_counter() - begun)
        grown = max(grown, resident() - before)
        del array
    return {"seconds": statistics.median(taken), "grown": grown / 1024}


def hand_over(actors: Any, mebibytes: int, times: int) -> float:
    ray.get([actors[0].make.remote(mebibytes), actors[1].make.remote(1)])
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        assert ray.get(actors[1].first.remote(actors[0].give.remote())) == 1
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def readers(actors: Any, mebibytes: int, count: int, times: int) -> float:
    import numpy

    array = numpy.ones(mebibytes << 17)
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        ref = ray.put(array)
        assert ray.get([actors[number % 2].total.remote(ref) for number in range(count)]) == [len(array)] * count
        taken.append(time.perf_counter() - begun)
        del ref
    return statistics.median(taken)


def main() -> None:
    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path must be short
    ray.init(
        num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR", _temp_dir=directory, object_store_memory=6 << 30
    )
    try:
        actors = [Actor.remote() for _ in range(2)]
        ray.get([actor.call.remote(1, 2) for actor in actors])
        call = actors[0].call
        serve(
            {
                "latency": lambda calls: latency(lambda: ray.get(call.remote(1, 2)), calls),
                "throughput": lambda tasks: throughput(lambda: Reference(call.remote(1, 2)), tasks),
                "give": lambda *given: give(actors, *given),
                "hand_over": lambda *given: hand_over(actors, *given),
                "readers": lambda *given: readers(actors, *given),
                "idle": lambda seconds: idle(BEFORE, seconds),
            }
        )
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
