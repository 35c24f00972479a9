"""Executors of the standard library and of loky: ``executors.py ProcessPool|loky``."""

import os
import sys

from _serve import idle, latency, noop, pss, serve, throughput

BEFORE = pss(os.getpid())


def executor(name, method=None):
    if name == "loky":
        from loky import ProcessPoolExecutor

        return ProcessPoolExecutor(2)
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(2, mp_context=multiprocessing.get_context(method))


def idle_with_two(name, seconds):
    with executor(name, "spawn") as pool:
        [one.result() for one in [pool.submit(noop, 1, 2) for _ in range(100)]]
        return idle(BEFORE, seconds)


def main():
    name = sys.argv[1]
    pools = []

    def submit():
        if not pools:
            pools.append(executor(name))
            [one.result() for one in [pools[0].submit(noop, 1, 2) for _ in range(100)]]
        return pools[0].submit

    serve(
        {
            "latency": lambda calls: latency(lambda one=submit(): one(noop, 1, 2).result(), calls),
            "throughput": lambda tasks: throughput(lambda one=submit(): one(noop, 1, 2), tasks),
            "idle": lambda seconds: idle_with_two(name, seconds),
        }
    )
    for pool in pools:
        pool.shutdown()


if __name__ == "__main__":
    main()
