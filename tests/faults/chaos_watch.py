"""Who watches the chaos load: ends the program with everything that is known when nothing moves, and counts what it leaves behind."""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import logging
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

_LOOKS = 0.5  # seconds between two
_ALONE = 6  # times the patience that one thread may stand still while others go on


class Watch:
    """Looks at the threads' steps. Counts looks, not seconds: a machine that stands still as a whole is no fault of the load."""

    def __init__(self, world: Any, patience: float, story: str, heard: list[str]) -> None:
        self._world = world
        self._most = int(patience / _LOOKS)
        self._story = story
        self._heard = heard
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="chaos-watch", daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        last: dict[int, int] = {}
        still: dict[int, int] = {}
        while not self._over.wait(_LOOKS):
            steps = dict(self._world.steps)
            still = {thread: still.get(thread, 0) + 1 if last.get(thread) == count else 0 for thread, count in steps.items()}
            last = steps
            if still and (min(still.values()) >= self._most or max(still.values()) >= self._most * _ALONE):
                try:
                    self._report({thread: looks * _LOOKS for thread, looks in still.items()})
                finally:
                    _end()

    def _report(self, still: dict[int, float]) -> None:
        print(f"\nSTUCK: {self._story}", flush=True)
        for thread, seconds in still.items():
            print(f"  thread {thread:#x}: {self._world.doing.get(thread)}, {self._world.steps.get(thread)} steps, still for {seconds:g} s")
        for complaint in self._heard:
            print(f"  heard before: {complaint}")
        print("\nservices that are open, or have calls that are not done:")
        for service in self._world.runner.services:
            print(_in_time(lambda service=service: _service(service)), end="", flush=True)
        print("\nprocesses:")
        for pid in descendants(os.getpid()):
            print(_process(pid))
        print("\nthreads:", flush=True)
        faulthandler.dump_traceback(sys.stdout, all_threads=True)
        sys.stdout.flush()


def _end() -> None:
    """With no thread to wait for, and no process left."""
    for pid in descendants(os.getpid()):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    os._exit(1)


def _service(service: Any) -> str:
    info = service.info()
    if info.completion_time is not None and not info.pending and not info.running:
        return ""
    describe = getattr(service._handle.session, "describe", None)  # for a diagnostic; not every engine has it
    return f"  {service!r}\n    {info}\n" + (f"    {describe()}\n" if describe is not None else "")


def _in_time(tell: Callable[[], str]) -> str:
    """What is stuck may hold a lock that is needed to tell about it."""
    told: list[str] = []

    def run() -> None:
        try:
            told.append(tell())
        except Exception as error:
            told.append(f"  cannot be told: {error!r}\n")

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(2)
    return told[0] if told else "  does not tell within 2 s\n"


def _process(pid: int) -> str:
    """Its state, its parent, and where in the kernel each of its threads waits."""
    with contextlib.suppress(OSError):
        status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
        waits = [Path(f"/proc/{pid}/task/{thread}/wchan").read_text() for thread in os.listdir(f"/proc/{pid}/task")]
        return f"  {pid} below {status['PPid'].strip()}, {status['State'].strip()}, its threads: {', '.join(waits)}"
    return f"  {pid} has ended, or is not ours to look into"


def descendants(pid: int) -> list[int]:
    found = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


# ---------------------------------------------------------------------------------------------------- what is told, what is left


class Complaints(logging.Handler):
    """Warnings of the libraries and errors of their threads: a load that is served well hears none."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.heard: list[str] = []
        self.setFormatter(logging.Formatter("%(name)s: %(message)s"))
        logging.getLogger().addHandler(self)
        threading.excepthook = lambda args: self.heard.append(f"{args.thread and args.thread.name}: {_trace(args.exc_value)}")
        sys.unraisablehook = lambda args: self.heard.append(f"{args.object!r}: {args.exc_value!r}")

    def emit(self, record: logging.LogRecord) -> None:
        self.heard.append(self.format(record))


def _trace(error: BaseException | None) -> str:
    return "".join(traceback.format_exception(error)) if error is not None else "an error"


_ONE_FOR_ALL = {"flame-callbacks"}
"""Threads that a process keeps from the time it first needs them."""


def belongings() -> dict[str, set[Any]]:
    """What a program has that outlives its objects."""
    gc.collect()
    descriptors = set()
    for fd in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            target = os.readlink(f"/proc/self/fd/{fd}")
            if "/locks/support-" not in target:  # held until the program ends, one for each set of modules
                descriptors.add(f"{fd} {target}")
    return {
        "processes": set(descendants(os.getpid())),
        "threads": {f"{thread.name} {thread.ident}" for thread in threading.enumerate() if thread.name not in _ONE_FOR_ALL},
        "descriptors": descriptors,
        "shared memory": set(os.listdir("/dev/shm")),
    }


def left_behind(before: dict[str, set[Any]]) -> list[str]:
    """What is there that was not. Memory that was written is kept for some seconds, to be written again."""
    deadline = time.monotonic() + 15
    while True:
        left = [f"{what}: {more}" for what, there in belongings().items() if (more := there - before[what])]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


_SPIN = "import os\nwhile os.getppid() == {}:\n for _ in range(1_000_000): pass"


@contextlib.contextmanager
def foreign_load(wanted: bool) -> Iterator[None]:
    """A process on every core that has nothing to do with us and never rests."""
    count = len(os.sched_getaffinity(0)) if wanted else 0
    processes = [subprocess.Popen([sys.executable, "-c", _SPIN.format(os.getpid())]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
