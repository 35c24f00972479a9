"""``flame-host serve`` as a process of its own, for tests that are its clients."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType


class ServerProcess:
    """``flame-host serve`` on a state, at ports that stay the same.

    Args:
        directory: for its state and its log. options: of the command, besides. root: of the host that serves; below the directory if
            it is not given.
    """

    def __init__(self, directory: Path, *options: str, root: Path | None = None) -> None:
        self.directory = directory
        self.root = root or directory / "root"
        self.frontend, self.cache, self.health = (f"127.0.0.1:{free_port()}" for _ in range(3))
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        self.log = directory / "server.log"

    @property
    def variables(self) -> dict[str, str]:
        """What tells clients where it is."""
        return {"FLAME_ENDPOINT": f"http://{self.frontend}", "FLAME_CACHE_ENDPOINT": f"grpc://{self.cache}"}

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: float = 60.0) -> None:
        words = [sys.executable, "-m", "flame_host.cli", "serve", "--listen", self.frontend, "--cache", self.cache]
        words += ["--health", self.health, "--state", str(self.directory / "state"), *self.options]
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(words, stdout=log, stderr=log, env={**os.environ, "FLAME_HOST_ROOT": str(self.root)})
        until = time.monotonic() + wait
        while time.monotonic() < until:
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with {self.process.returncode}: {self.log.read_text()[-3000:]}")
            host, _, port = self.frontend.rpartition(":")
            with socket.socket() as probe:
                if probe.connect_ex((host, int(port))) == 0:
                    return
            time.sleep(0.02)
        raise RuntimeError(f"the server does not answer: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        """As a supervisor ends it."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)

    def __enter__(self) -> ServerProcess:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.process is not None and self.process.poll() is None:
            self.end()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
