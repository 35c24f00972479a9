"""The loop of every contender: a question a line comes in, a figure goes out. Standard library only, for any environment."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any


def noop(a: int, b: int) -> int:
    return a + b


def latency(call: Callable[[], object], calls: int) -> float:
    """Median microseconds of a call and its answer, one at a time."""
    taken = []
    for _ in range(calls):
        begun = time.perf_counter()
        call()
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken) * 1e6


def throughput(submit: Callable[[], Any], tasks: int) -> float:
    """Microseconds a task when all are submitted and then waited for, the futures kept."""
    begun = time.perf_counter()
    futures = [submit() for _ in range(tasks)]
    for future in futures:
        future.result()
    return (time.perf_counter() - begun) / tasks * 1e6


def resident(pid: int | str = "self", field: str = "RssAnon") -> int:
    """KiB that are a process's own: pages of shared memory it has mapped are not counted."""
    with open(f"/proc/{pid}/status") as lines:
        return next(int(line.split()[1]) for line in lines if line.startswith(field))


def descendants(pid: int | str) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        with open(f"/proc/{pid}/task/{thread}/children") as stream:
            for child in stream.read().split():
                found += [int(child), *descendants(child)]
    return found


def pss(pid: int | str) -> float:
    """MiB, shared pages divided among those who share them."""
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:"))


def idle(before: float, seconds: float) -> dict[str, float]:
    """What this process gained and its descendants: MiB, and per cent of one processor."""
    time.sleep(1.5)
    pids = [os.getpid(), *descendants(os.getpid())]
    used = {pid: _on_cpu(pid) for pid in pids}
    time.sleep(seconds)
    cpu = sum(_on_cpu(pid) - used[pid] for pid in pids) / seconds / 1e9
    return {"memory": sum(map(pss, pids)) - before, "cpu": 100 * cpu, "processes": len(pids) - 1}


def _on_cpu(pid: int | str) -> int:
    total = 0
    for thread in os.listdir(f"/proc/{pid}/task"):
        try:
            with open(f"/proc/{pid}/task/{thread}/schedstat") as stream:
                total += int(stream.read().split()[0])
        except OSError:
            continue
    return total


def answer(value: Any) -> None:
    print("= " + json.dumps(value), flush=True)


def serve(questions: Mapping[str, Callable[..., Any]]) -> None:
    """Say that we are ready, then answer until standard input ends."""
    answer(True)
    for line in sys.stdin:
        question, *arguments = json.loads(line)
        try:
            answer(questions[question](*arguments))
        except Exception as error:
            traceback.print_exc()
            answer(f"{type(error).__name__}: {error}")
