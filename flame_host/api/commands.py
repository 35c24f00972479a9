"""For installers: run a command with its output kept, a deadline, and nothing left behind."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from flame_host.api.redaction import without_secrets

_OURS = ("PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "VIRTUAL_ENV")
_GUARD = """
exec 3<&0 </dev/null
"$@" 3<&- &
command=$!
{ read -r never <&3; kill -9 0; } &
exec 3<&-
wait $command
"""
"""Runs the command in a process group of its own, all of which ends when our end of its pipe closes: by us, or by our being killed.

A shell, and not a function that Python runs in the child: that would not go together with threads and libraries that mind forks.
"""


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
    with tempfile.TemporaryFile("w+", errors="replace") as output:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _GUARD, "sh", *argv],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=directory,
            start_new_session=True,
            umask=0o077,  # what tools keep in the user's home and in temporary directories is nobody else's, either
        )
        try:
            code: int | None = process.wait(deadline)
        except subprocess.TimeoutExpired:
            code = None
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # also what the command has left behind
            process.wait()
            if process.stdin is not None:
                process.stdin.close()
            output.seek(0)
            text = output.read()
            if log is not None:
                with log.open("a") as stream:
                    stream.write(without_secrets(f"$ {' '.join(argv)}\n{text}\n"))
    return code, text


def last_lines(output: str, count: int = 20) -> str:
    """The end of an output, without blank lines."""
    return "\n".join([line.rstrip() for line in output.splitlines() if line.strip()][-count:])
