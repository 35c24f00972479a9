"""Executors of the standard library and of loky: ``executors.py ProcessPool|loky``."""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import time
from collections.abc import Callable
from typing import Any

from _serve import idle, latency, noop, pss, serve, throughput

BEFORE = pss(os.getpid())


def executor(name: str, method: str | None = None) -> Any:
    if name == "loky":
        from loky import ProcessPoolExecutor

        return ProcessPoolExecutor(2)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


def idle_with_two(name: str, seconds: float) -> dict[str, float]:
    with executor(name, "spawn") as pool:
        [one.result() for one in [pool.submit(noop, 1, 2) for _ in range(100)]]
        return idle(BEFORE, seconds)


def new_worker(times: int) -> float:
    """Milliseconds until a pool of one, from a fork server that is there, has answered for the first time."""
    taken = []
    for _ in range(times + 1):
        begun = time.perf_counter()
        with executor("ProcessPool", "forkserver") as pool:
            pool.submit(noop, 1, 2).result()
            taken.append(time.perf_counter() - begun)
    return sorted(taken[1:])[times // 2] * 1e3


def main() -> None:
    name = sys.argv[1]
    with contextlib.ExitStack() as stack:

        @functools.cache
        def submit() -> Any:
            pool = stack.enter_context(executor(name))
            [one.result() for one in [pool.submit(noop, 1, 2) for _ in range(100)]]
            return functools.partial(pool.submit, noop, 1, 2)

        serve(
            {
                "latency": lambda calls: latency(one_call(submit()), calls),
                "throughput": lambda tasks: throughput(submit(), tasks),
                "new_worker": new_worker,
                "idle": lambda seconds: idle_with_two(name, seconds),
            }
        )


def one_call(submit: Callable[[], Any]) -> Callable[[], object]:
    return lambda: submit().result()


if __name__ == "__main__":
    main()
