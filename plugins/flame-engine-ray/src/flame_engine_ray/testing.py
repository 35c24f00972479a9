"""Ray clusters of this machine, for tests: nodes that have Ray and nothing else, each with a host's root of its own.

A cluster is held by a process of its own (``python -m flame_engine_ray.testing``), which is nobody's child and takes all nodes along when
whoever asked for them closes its socket, or ends.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Mapping, Sequence
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

from flame_engine_ray.bundle import closure

_PATIENCE = 120.0
_STORE = 128 << 20
_DETACH = (
    "import subprocess, sys; name, fd = sys.argv[1:];"
    "subprocess.Popen([sys.executable, '-m', name, fd], pass_fds=[int(fd)], start_new_session=True)"
)


def bare_python(directory: Path) -> Path:
    """An interpreter with Ray, what Ray requires, and pip, linked from this environment, and nothing else."""
    venv.EnvBuilder(symlinks=True, with_pip=False).create(directory)
    (site,) = directory.glob("lib/python*/site-packages")
    for found in closure(["ray", "pip"], stay=()).values():
        for name in {Path(str(path)).parts[0] for path in found.files or () if not str(path).startswith("..")}:
            place = Path(str(distribution(found.name).locate_file(name)))
            if place.exists() and name != "__pycache__" and not (site / name).exists():
                (site / name).symlink_to(place)
    return directory / "bin" / "python"


class RayCluster:
    """A head and, on demand, further nodes. Close it.

    Args:
        directory: for the nodes' environments, Ray's own files and the roots of their hosts.
        variables: of the nodes, besides a PATH with the commands in ``path``.
    """

    def __init__(self, directory: Path, variables: Mapping[str, str], *, cpus: float = 2, path: Sequence[Path] = ()) -> None:
        self._directory = directory
        self._variables = dict(variables)
        self._path = os.pathsep.join([*map(str, path), "/usr/local/bin", "/usr/bin", "/bin"])
        self._python = bare_python(directory / "node")
        self._files = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # not below: names of sockets must be short
        self._count = 0
        ours, theirs = socket.socketpair()
        with theirs:
            # Through a process that ends at once, so that the holder and the nodes are no descendants of this one.
            subprocess.run([sys.executable, "-c", _DETACH, __name__, str(theirs.fileno())], pass_fds=[theirs.fileno()], check=True)
        self._holder = ours
        self._lines = ours.makefile("r")
        self.port = _free_port()
        self.address = f"127.0.0.1:{self.port}"
        self.head = self._start(["--head", f"--port={self.port}", "--include-dashboard=false", f"--temp-dir={self._files}"], cpus, {})

    def add_node(self, *, cpus: float = 1, variables: Mapping[str, str] | None = None, resources: Mapping[str, float] | None = None) -> int:
        """Returns what `kill_node` takes."""
        more = [f"--resources={json.dumps(resources)}"] if resources else []
        return self._start([f"--address={self.address}", *more], cpus, variables or {})

    def kill_node(self, node: int) -> None:
        """All of its processes at once, without a word; one that is gone already stays so."""
        self._ask({"kill": node})

    def freeze_node(self, node: int, frozen: bool) -> None:
        """Stop all of its processes, or let them go on: to the others it looks as if the network were gone."""
        self._ask({"signal": int(signal.SIGSTOP if frozen else signal.SIGCONT), "node": node})

    def _start(self, arguments: Sequence[str], cpus: float, variables: Mapping[str, str]) -> int:
        self._count += 1
        root = self._directory / f"root-{self._count}"
        root.mkdir(mode=0o700, exist_ok=True)
        environment = {
            "PATH": self._path,
            "HOME": str(root),
            "FLAME_HOST_ROOT": str(root),
            "RAY_AUTH_MODE": "disabled",
            **self._variables,
            **variables,
        }
        argv = [
            str(self._python), "-m", "ray.scripts.scripts", "start", "--block", "--node-ip-address=127.0.0.1", "--disable-usage-stats",
            f"--num-cpus={cpus:g}", f"--object-store-memory={_STORE}", *arguments,
        ]  # fmt: skip
        return int(self._ask({"start": argv, "environment": environment, "log": str(self._directory / f"node-{self._count}.log")})["node"])

    def _ask(self, order: dict[str, Any]) -> dict[str, Any]:
        self._holder.sendall(json.dumps(order).encode() + b"\n")
        answer: dict[str, Any] = json.loads(self._lines.readline())
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._holder.shutdown(socket.SHUT_WR)
            self._lines.readline()  # the holder closes when all is gone
        self._holder.close()
        shutil.rmtree(self._files, ignore_errors=True)


def connect(address: str) -> None:
    """Have this process connected to that cluster, and to no other."""
    import ray

    from flame_engine_ray.cluster import is_same

    if ray.is_initialized() and not is_same(address, ray.get_runtime_context().gcs_address):
        ray.shutdown()
    if not ray.is_initialized():
        ray.init(address=address, log_to_driver=False, logging_level="error")


def _free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


class _Holder:
    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._nodes: dict[int, subprocess.Popen[bytes]] = {}

    def serve(self) -> None:
        try:
            for line in self._sock.makefile("r"):
                try:
                    answer = self._obey(json.loads(line))
                except Exception as error:
                    answer = {"error": f"{type(error).__name__}: {error}"}
                self._sock.sendall(json.dumps(answer).encode() + b"\n")
        finally:
            for node in list(self._nodes):
                self._kill(node)

    def _obey(self, order: dict[str, Any]) -> dict[str, Any]:
        if "start" in order:
            return {"node": self._start(order["start"], order["environment"], Path(order["log"]))}
        if "kill" in order:
            self._kill(order["kill"])
        else:
            for pid in self._processes(order["node"]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, order["signal"])
        return {}

    def _start(self, argv: list[str], environment: dict[str, str], log: Path) -> int:
        with log.open("wb") as output:
            process = subprocess.Popen(
                argv, env=environment, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True
            )
        self._nodes[process.pid] = process
        deadline = time.monotonic() + _PATIENCE
        while b"Ray runtime started" not in log.read_bytes():
            if process.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"the node did not start: {log.read_text()[-2000:]}")
            time.sleep(0.05)
        return process.pid

    def _processes(self, node: int) -> list[int]:
        """Those that carry the node's environment: Ray gives some of its workers sessions of their own."""
        mark = f"FLAME_HOST_ROOT={_environment(node).get('FLAME_HOST_ROOT', '-')}"
        return [
            pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if mark in [f"{k}={v}" for k, v in _environment(pid).items()]
        ]

    def _kill(self, node: int) -> None:
        process = self._nodes.pop(node, None)
        if process is None:
            return
        while pids := [pid for pid in self._processes(node) if pid != node]:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.02)
        process.kill()
        process.wait()


def _environment(pid: int) -> dict[str, str]:
    try:
        entries = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return {}
    return dict(entry.decode("utf-8", "replace").partition("=")[::2] for entry in entries if b"=" in entry)


if __name__ == "__main__":
    _Holder(socket.socket(fileno=int(sys.argv[1]))).serve()
