"""A process that does one thing with bytes of strangers, answers, and is killed at its deadline."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from flame_host.api import PluginError


def ask(script: Path, order: bytes, seconds: float, most: int) -> tuple[bytes, str]:
    """Run a script of ours; returns its answer, of at most so many bytes, and what else it had to say if it gave none.

    Raises:
        TimeoutError: it took longer.
    """
    if not sys.executable:
        raise PluginError("packages are read by a second Python process, and this one does not know its interpreter (sys.executable)")
    deadline = time.monotonic() + seconds
    # A session of its own, so that the group can be killed; its standard input stays open for as long as we live.
    child = subprocess.Popen(
        [sys.executable, "-I", "-S", os.fspath(script)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0, start_new_session=True,
    )  # fmt: skip
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    try:
        with contextlib.suppress(BrokenPipeError):  # it ended before it listened; its standard error says why
            child.stdin.write(order)
        answer = _read(child.stdout.fileno(), deadline, most)
        complaint = "" if answer else os.read(child.stderr.fileno(), 64 << 10).decode(errors="replace")
        try:
            child.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        if not answer:
            complaint = complaint or f"exit status {child.returncode}"
        return answer, complaint
    finally:
        _end(child)


def _read(descriptor: int, deadline: float, most: int) -> bytes:
    """All the child answers, until it closes its end."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    answer = bytearray()
    while len(answer) < most:
        if not poll.poll(max(0, int((deadline - time.monotonic()) * 1000))):
            raise TimeoutError
        data = os.read(descriptor, 64 << 10)
        if not data:
            break
        answer += data
    return bytes(answer)


def _end(child: subprocess.Popen[bytes]) -> None:
    if child.poll() is None:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            stream.close()
