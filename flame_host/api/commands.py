"""For installers: run a command with its output kept, a deadline, and nothing left behind."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from flame_host.api.redaction import without_secrets

_OURS = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV")
_GUARD = "read -r never || kill -9 0"
"""Leads the command's process group, and takes all of it along when our end of its pipe closes: by us, or by our being killed."""


def run_command(
    argv: list[str],
    *,
    log: Path | None = None,
    deadline: float,
    variables: Mapping[str, str] | None = None,
    directory: Path | None = None,
) -> tuple[int | None, str]:
    """Exit code (None when the deadline passed) and output, which is also appended to the log.

    ``variables`` are set over this process's own, and those about our own interpreter are not handed on; it runs in ``directory``. The
    command and all it starts end with this call, at the deadline, and with this process, however that ends.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _OURS}
    environment.update(variables or {})
    with tempfile.TemporaryFile("w+", errors="replace") as output, _process_group() as group:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,
            preexec_fn=functools.partial(os.setpgid, 0, group),
        )
        try:
            code: int | None = process.wait(deadline)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(group, signal.SIGKILL)
                process.wait()
            output.seek(0)
            text = output.read()
            if log is not None:
                with log.open("a") as stream:
                    stream.write(without_secrets(f"$ {' '.join(argv)}\n{text}\n"))
    return code, text


@contextlib.contextmanager
def _process_group() -> Iterator[int]:
    guard = subprocess.Popen(
        ["/bin/sh", "-c", _GUARD], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, preexec_fn=os.setpgrp
    )
    try:
        yield guard.pid
    finally:
        assert guard.stdin is not None
        guard.stdin.close()
        guard.wait()


def last_lines(output: str, count: int = 20) -> str:
    """The end of an output, without blank lines."""
    return "\n".join([line.rstrip() for line in output.splitlines() if line.strip()][-count:])
