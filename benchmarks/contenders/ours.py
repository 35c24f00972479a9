"""Ours, through the public door: `flamepy.Runner` on the local engine."""

from __future__ import annotations

import contextlib
import functools
import gc
import os
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from _serve import idle, latency, noop, pss, resident, serve, throughput

BEFORE = pss(os.getpid())

from flamepy import Runner  # noqa: E402  what the client costs is counted from here


class Holder:
    """Keeps an array, as an actor would."""

    def make(self, mebibytes: int) -> None:
        import numpy

        self.array = numpy.ones(mebibytes << 17)

    def give(self) -> Any:
        return self.array

    def first(self, array: Any) -> float:
        return float(array[0])


def total(array: Any) -> float:
    return float(array.sum())


def one_call(service: Any) -> Callable[[], object]:
    return lambda: service(1, 2).get()


def pending(service: Any, tasks: int) -> dict[str, float]:
    """Microseconds a task, and what a task costs the client in bytes, its answer included."""
    gc.collect()
    before = resident()
    begun = time.perf_counter()
    futures = [service(1, 2) for _ in range(tasks)]
    high = resident()
    for future in futures:
        future.get()
    taken = time.perf_counter() - begun
    return {"cost": taken / tasks * 1e6, "bytes": (max(high, resident()) - before) * 1024 / tasks}


def give(rr: Runner, mebibytes: int, times: int) -> Any:
    """Seconds until an array that a worker holds is in the client, and what the client grew by in MiB."""
    holder = rr.service(Holder)
    holder.make(mebibytes).get()
    taken, before = [], resident()
    grown = 0
    for _ in range(times):
        begun = time.perf_counter()
        array = holder.give().get()
        assert array[[0, -1]].sum() == 2
        taken.append(time.perf_counter() - begun)
        grown = max(grown, resident() - before)
        del array
    holder.close()
    return {"seconds": statistics.median(taken), "grown": grown / 1024}


def hand_over(rr: Runner, mebibytes: int, times: int) -> float:
    """Seconds until a worker has read what another one returned."""
    source, target = rr.service(Holder), rr.service(Holder)
    source.make(mebibytes).get()
    target.make(1).get()
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        assert target.first(source.give()).get() == 1
        taken.append(time.perf_counter() - begun)
    source.close()
    target.close()
    return statistics.median(taken)


def readers(rr: Runner, mebibytes: int, count: int, times: int) -> float:
    """Seconds to put an array and have it summed so many times."""
    import numpy

    array = numpy.ones(mebibytes << 17)
    service = rr.service(total, warmup=2)
    [one.get() for one in [service(array[:1]) for _ in range(8)]]
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        ref = rr.put_object(array)
        for one in [service(ref) for _ in range(count)]:
            assert one.get() == len(array)
        taken.append(time.perf_counter() - begun)
        ref.delete()
    service.close()
    return statistics.median(taken)


def new_worker(rr: Runner, times: int) -> float:
    """Milliseconds until a function on a worker of its own has answered for the first time."""
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        with rr.service(noop) as service:
            service(1, 2).get()
            taken.append(time.perf_counter() - begun)
    return sorted(taken)[len(taken) // 2] * 1e3


def idle_with_two(rr: Runner, seconds: float) -> dict[str, float]:
    with rr.service(noop, warmup=2, min_instances=2) as service:
        [one.get() for one in [service(1, 2) for _ in range(100)]]
        return idle(BEFORE, seconds)


def main() -> None:
    with contextlib.ExitStack() as stack:
        rr = stack.enter_context(Runner("bench", package=False, logs="none"))

        @functools.cache
        def service() -> Any:
            made = rr.service(noop)
            made(1, 2).get()
            return made

        @functools.cache
        def arrays() -> Any:
            import numpy

            wanted = [f"numpy=={numpy.__version__}"]
            return stack.enter_context(Runner("arrays", package=False, logs="none", dependencies=wanted))

        serve(
            {
                "latency": lambda calls: latency(one_call(service()), calls),
                "throughput": lambda tasks: throughput(partial(service(), 1, 2), tasks),
                "pending": lambda tasks: pending(service(), tasks),
                "give": lambda *given: give(arrays(), *given),
                "hand_over": lambda *given: hand_over(arrays(), *given),
                "readers": lambda *given: readers(arrays(), *given),
                "new_worker": lambda *given: new_worker(rr, *given),
                "idle": lambda seconds: idle_with_two(rr, seconds),
            }
        )


if __name__ == "__main__":
    main()
