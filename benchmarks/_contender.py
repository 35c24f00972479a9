"""Contenders from our side: a process each, asked over a pipe; and the peers' environment."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks._measure import Unavailable

PROGRAMS = Path(__file__).with_name("contenders")
WANTED = ("ray", "dask", "distributed", "loky", "numpy", "pip", "virtualenv")
PEERS = ("ProcessPool", "loky", "dask", "ray")
# Their daemons are busy even when nobody asks, so they live for one turn only.
BUSY = ("dask", "ray")
PATIENCE = 300.0
"""Seconds for one answer; a contender that needs more is ended and left out."""
FILES = {"ProcessPool": "executors.py", "loky": "executors.py", "dask": "on_dask.py", "ray": "on_ray.py"}


@dataclass(frozen=True)
class Options:
    """What the command line asked for.

    Attributes:
        rounds: how often every contender has its turn. peers: the peers' environment. scratch: a directory that goes with the run.
    """

    rounds: int
    quick: bool
    peers: Path
    scratch: Path

    @property
    def environment(self) -> dict[str, str]:
        """For every child: bytecode is written, the host's root is our own, a peer's files lie in the scratch directory."""
        kept = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE" and not key.startswith("FLAME_")}
        ours = {"FLAME_HOST_ROOT": str(self.scratch / "root"), "BENCH_SCRATCH": str(self.scratch), "RAY_USAGE_STATS_ENABLED": "0"}
        return kept | ours

    def fewer(self, count: int) -> int:
        return max(10, count // 10) if self.quick else count


class Contender:
    """One program under ``contenders/``, started when it is first asked."""

    def __init__(self, name: str, argv: list[str], options: Options) -> None:
        self.name = name
        self._argv = argv
        self._options = options
        self._process: subprocess.Popen[str] | None = None
        self._errors = options.scratch / f"{name}.log"

    def ask(self, question: str, *arguments: Any) -> Any:
        """The answer: a number, or a mapping of numbers."""
        if self._process is None:
            self._start()
        assert self._process is not None
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([question, *arguments]) + "\n")
        self._process.stdin.flush()
        try:
            return self._answer()
        finally:
            if self.name in BUSY:
                self.close()

    def _start(self) -> None:
        with self._errors.open("w") as errors:
            self._process = subprocess.Popen(
                self._argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, env=self._options.environment,
                cwd=self._options.scratch, start_new_session=True,
            )  # fmt: skip
        self._answer()

    def _answer(self) -> Any:
        assert self._process is not None
        assert self._process.stdout is not None
        watchdog = threading.Timer(PATIENCE, os.killpg, (self._process.pid, signal.SIGKILL))
        watchdog.start()
        try:
            for line in self._process.stdout:
                if line.startswith("= "):  # a peer may print what it likes
                    answer = json.loads(line[2:])
                    if isinstance(answer, str):
                        raise Unavailable(answer)
                    return answer
        finally:
            watchdog.cancel()
        self.close()
        last = self._errors.read_text(errors="replace").strip().splitlines()[-1:]
        raise Unavailable(f"its process ended: {' '.join(last)}")

    def close(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with contextlib.suppress(OSError):
            process.communicate(timeout=30)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


@contextlib.contextmanager
def contenders(options: Options, *names: str) -> Iterator[dict[str, Contender]]:
    """The limit, ours, and the peers named that can be had, in the order of their turns."""
    found = {name: Contender(name, [sys.executable, str(PROGRAMS / f"{name}.py")], options) for name in ("limit", "ours")}
    python = peers_python(options.peers) if names else None
    if python is not None:
        found |= {name: Contender(name, [str(python), str(PROGRAMS / FILES[name]), name], options) for name in names}
    try:
        yield found
    finally:
        for contender in found.values():
            contender.close()


@functools.cache
def peers_python(directory: Path) -> Path | None:
    """The interpreter of the peers' environment, which is made when it is not there; None, with a word, when that fails."""
    python = directory / "bin" / "python"
    if python.exists():
        return python
    uv = shutil.which("uv") or "uv"
    print(f"making the peers' environment ({', '.join(WANTED)})", file=sys.stderr)
    directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile("w+") as errors:
        try:
            subprocess.run([uv, "venv", "-q", str(directory), "--python", sys.executable], check=True, stderr=errors)
            subprocess.run([uv, "pip", "install", "-q", "--python", str(python), *WANTED], check=True, stderr=errors)
        except (OSError, subprocess.CalledProcessError) as error:
            errors.seek(0)
            print(f"the peers are left out: {error}\n{errors.read().strip()}", file=sys.stderr)
            shutil.rmtree(directory, ignore_errors=True)
            return None
    return python
