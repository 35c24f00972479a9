"""For installers: run a command with its output kept, a deadline, and nothing left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flame_host.api.redaction import without_secrets

_OURS = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV")


def run_command(
    argv: list[str], *, log: Path | None = None, deadline: float, variables: Mapping[str, str] | None = None
) -> tuple[int | None, str]:
    """Exit code (None when the deadline passed) and output, which is also appended to the log.

    ``variables`` are set over this process's own; those about our own interpreter are not handed on. The command is a process group
    of its own, killed as a whole at the deadline and when this call is interrupted.
    """
    environment = {key: value for key, value in os.environ.items() if key not in _OURS}
    environment.update(variables or {})
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, env=environment, start_new_session=True
        )
        try:
            code: int | None = process.wait(deadline)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            output.seek(0)
            text = output.read()
            if log is not None:
                with log.open("a") as stream:
                    stream.write(without_secrets(f"$ {' '.join(argv)}\n{text}\n"))
    return code, text


def last_lines(output: str, count: int = 20) -> str:
    """The end of an output, without blank lines."""
    return "\n".join([line.rstrip() for line in output.splitlines() if line.strip()][-count:])
