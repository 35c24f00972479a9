"""Other programs at work for a build, none of which outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from pathlib import Path

__all__ = ["Overtaken", "run", "unless"]

_LOOKS = 0.3
"""Seconds between two looks at whether it is still wanted."""
_over: ContextVar[Callable[[], bool] | None] = ContextVar("over", default=None)


class Overtaken(Exception):
    """What is being built is not wanted any more."""


@contextlib.contextmanager
def unless(over: Callable[[], bool]) -> Iterator[None]:
    """End what runs within, with `Overtaken`, as soon as this is true."""
    before = _over.set(over)
    try:
        yield
    finally:
        _over.reset(before)


def run(order: Sequence[str], *, cwd: Path, seconds: float, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; if this is interrupted or takes too long, it and all it has started are killed.

    Raises:
        subprocess.TimeoutExpired: it took too long. Overtaken: see `unless`.
    """
    process = subprocess.Popen(
        order, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        output, said = _communicated(process, seconds)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(order, process.returncode, output, said)


def _communicated(process: subprocess.Popen[str], seconds: float) -> tuple[str, str]:
    over = _over.get()
    if over is None:
        return process.communicate(timeout=seconds)
    deadline = time.monotonic() + seconds
    while not over():
        try:
            return process.communicate(timeout=_LOOKS)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                raise
    raise Overtaken
