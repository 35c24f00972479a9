"""For tests that start processes: see to it that none is left."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path


def descendants() -> list[int]:
    """Processes directly below this one, ended but not waited-for ones included."""
    found: list[int] = []
    for thread in os.listdir("/proc/self/task"):
        with contextlib.suppress(FileNotFoundError):  # the thread has just ended
            found += [int(pid) for pid in Path(f"/proc/self/task/{thread}/children").read_text().split()]
    return found


def eventually(condition: Callable[[], object], seconds: float = 5.0) -> bool:
    """Whether it becomes true in time; asked once more at the end."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.01)
    return bool(condition())
