"""Dask: an actor for single calls, tasks for many."""

from __future__ import annotations

import os
from typing import Any

from _serve import idle, latency, noop, pss, serve, throughput

BEFORE = pss(os.getpid())


class Actor:
    def call(self, a: int, b: int) -> Any:
        return a + b


def main() -> None:
    from dask.distributed import Client

    options = {"dashboard_address": None, "local_directory": os.environ["BENCH_SCRATCH"]}
    with Client(n_workers=2, threads_per_worker=1, **options) as client:
        actor = client.submit(Actor, actor=True).result()
        actor.call(1, 2).result()
        serve(
            {
                "latency": lambda calls: latency(lambda: actor.call(1, 2).result(), calls),
                "throughput": lambda tasks: throughput(lambda: client.submit(noop, 1, 2, pure=False), tasks),
                "idle": lambda seconds: idle(BEFORE, seconds),
            }
        )


if __name__ == "__main__":
    main()
