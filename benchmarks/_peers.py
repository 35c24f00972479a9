"""Run inside the peers' environment: ``python _peers.py PEER`` answers requests on standard input, a JSON line each."""

from __future__ import annotations

import json
import statistics
import sys
import time


def noop(a, b):
    return a + b


def _pool():
    from concurrent.futures import ProcessPoolExecutor

    return ProcessPoolExecutor(2).submit


def _loky():
    from loky import get_reusable_executor

    return get_reusable_executor(2).submit


def _dask():
    from dask.distributed import Client

    client = Client(n_workers=2, threads_per_worker=1, dashboard_address=None)
    return lambda function, *args: client.submit(function, *args, pure=False)


def _ray():
    import ray

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")

    @ray.remote
    class Actor:
        def call(self, a, b):
            return a + b

    actor = Actor.remote()

    class Reference:
        def __init__(self, ref):
            self.ref = ref

        def result(self):
            return ray.get(self.ref)

    return lambda function, *args: Reference(actor.call.remote(*args))


def latency(submit, calls):
    taken = []
    for _ in range(calls):
        begun = time.perf_counter()
        submit(noop, 1, 2).result()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


def throughput(submit, tasks):
    begun = time.perf_counter()
    for future in [submit(noop, 1, 2) for _ in range(tasks)]:
        future.result()
    return (time.perf_counter() - begun) / tasks * 1e6


def main():
    submit = {"pool": _pool, "loky": _loky, "dask": _dask, "ray": _ray}[sys.argv[1]]()
    submit(noop, 1, 2).result()
    print("ready", flush=True)
    for line in sys.stdin:
        workload, count = json.loads(line)
        print(json.dumps({"latency": latency, "throughput": throughput}[workload](submit, count)), flush=True)


if __name__ == "__main__":
    main()
