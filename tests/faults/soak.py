"""Faults at random for ten minutes, and nothing may grow: ``python tests/faults/soak.py [minutes]``.

Two services take tasks of which one in fifty crashes, exits, hangs over its time limit, floods or fails; workers are killed from
outside meanwhile. Each round ends with the books: every task has its outcome, and memory, descriptors, threads and processes are
where they were after the first rounds.
"""

from __future__ import annotations

import contextlib
import gc
import os
import random
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from flamepy import Runner

from flame_host.api import TaskExitError, TaskTimeoutError, WorkerCrashedError

EXPECTED = {"crash": WorkerCrashedError, "exit": TaskExitError, "hang": TaskTimeoutError, "raise": ValueError}


def work(what: str, number: int) -> Any:
    if what == "crash":
        os.abort()
    if what == "exit":
        sys.exit(3)
    if what == "hang":
        time.sleep(300)
    if what == "raise":
        raise ValueError(number)
    if what == "flood":
        print("x" * 100_000)
    if what == "large":
        return bytearray(2 << 20)
    return number


def books() -> dict[str, int]:
    gc.collect()
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4
    return {"KiB": resident, "descriptors": len(os.listdir("/proc/self/fd")), "threads": threading.active_count()}


def one_round(rr: Runner, chance: random.Random) -> int:
    service = rr.service(work, max_instances=2, timeout=1.0, retries=100)
    calls = []
    for number in range(500):
        what = chance.choice(["crash", "exit", "raise", "flood", "large"]) if chance.random() < 0.02 else "plain"
        calls.append((what, number, service(what, number)))
    calls.append(("hang", 0, service("hang", 0)))
    for _ in range(3):
        time.sleep(0.05)
        for executor in list(service._handle.session.executors):
            if chance.random() < 0.3 and executor.pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(executor.pid, signal.SIGKILL)
    for what, number, future in calls:
        error = future.exception(timeout=60)
        if what in EXPECTED:
            assert isinstance(error, EXPECTED[what]), (what, error)
        else:
            assert error is None, (what, error)
            if what == "plain":
                assert future.get() == number
    service.close()
    return len(calls)


def main(minutes: float) -> None:
    chance = random.Random(1)
    deadline = time.monotonic() + minutes * 60
    rounds = tasks = 0
    start: dict[str, int] = {}
    here = tempfile.TemporaryDirectory(prefix="flame-soak-")
    os.chdir(here.name)
    with Runner("soak", engine="local", package=False, logs="none") as rr:
        while time.monotonic() < deadline:
            tasks += one_round(rr, chance)
            rounds += 1
            if rounds == 5:
                start = books()
            if rounds % 20 == 0:
                print(f"{rounds} rounds, {tasks} tasks, {books()}", flush=True)
        time.sleep(1)
        end = books()
    os.chdir("/")
    here.cleanup()
    print(f"{rounds} rounds, {tasks} tasks; after 5 rounds {start}, at the end {end}")
    assert not start or end["descriptors"] <= start["descriptors"] + 8, "descriptors leak"
    assert not start or end["threads"] <= start["threads"] + 4, "threads leak"
    assert not start or end["KiB"] <= start["KiB"] * 1.5 + (32 << 10), "memory leaks"


if __name__ == "__main__":
    main(float(sys.argv[1]) if len(sys.argv) > 1 else 10)
