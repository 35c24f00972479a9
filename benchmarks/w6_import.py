"""W6: what importing the client costs, and a new worker from an environment that is warm."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

from benchmarks._contender import Options, contenders
from benchmarks._measure import Promise, Row, interleave

TIMES = 7


def rows(options: Options) -> list[Row]:
    imported = Row("W6 import flamepy", "ms", [Promise("bare Python", 60, plus=True)])
    used = Row("W6 from flamepy import Runner", "ms", [Promise("bare Python", 60, plus=True)])
    worker = Row("W6 new worker to its first answer", "ms", [Promise("", 15)])

    def start(code: str) -> float:
        begun = time.perf_counter()
        subprocess.run([sys.executable, "-c", code], check=True, env=options.environment, cwd=options.scratch)
        return 1e3 * (time.perf_counter() - begun)

    start("from flamepy import Runner")  # writes the bytecode
    for row, code in ((imported, "import flamepy"), (used, "from flamepy import Runner")):
        peer = "from concurrent.futures import ProcessPoolExecutor"
        turns = {"bare Python": partial(start, "pass"), "ours": partial(start, code), "ProcessPoolExecutor": partial(start, peer)}
        interleave(row, turns, 4 * options.rounds)
    with contenders(options, "ProcessPool") as found:
        workers: dict[str, Callable[[], float]] = {
            "bare Python": lambda: min(start("pass") for _ in range(3)),
            "ours": partial(found["ours"].ask, "new_worker", TIMES),
        }
        if "ProcessPool" in found:  # the peers' environment could be made
            workers["ProcessPool, forkserver"] = partial(found["ProcessPool"].ask, "new_worker", TIMES)
        interleave(worker, workers, options.rounds)
    return [imported, used, worker]
