"""W6: what importing the client costs, and a new worker from an environment that is warm."""

from __future__ import annotations

import subprocess
import sys
import time

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
        turns = {"bare Python": lambda: start("pass"), "ours": lambda code=code: start(code)}
        turns["ProcessPoolExecutor"] = lambda: start("from concurrent.futures import ProcessPoolExecutor")
        interleave(row, turns, 4 * options.rounds)
    with contenders(options, "ProcessPool") as found:
        ours, pool = found["ours"], found["ProcessPool"]
        turns = {
            "bare Python": lambda: min(start("pass") for _ in range(3)),
            "ours": lambda: ours.ask("new_worker", TIMES),
            "ProcessPool, forkserver": lambda: pool.ask("new_worker", TIMES),
        }
        interleave(worker, turns, options.rounds)
    return [imported, used, worker]
