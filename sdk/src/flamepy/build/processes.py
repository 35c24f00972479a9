"""Other programs at work for a build, none of which outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

__all__ = ["run"]


def run(order: Sequence[str], *, cwd: Path, seconds: float, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run it to its end; if this is interrupted or takes too long, it and all it has started are killed.

    Raises:
        subprocess.TimeoutExpired: it took too long.
    """
    process = subprocess.Popen(
        order, cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace",
        start_new_session=True,
    )  # fmt: skip
    try:
        output, said = process.communicate(timeout=seconds)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise
    return subprocess.CompletedProcess(order, process.returncode, output, said)
