"""An executor manager of a Flame cluster, simulated: starts an application process for a session and drives it over the real socket.

It keeps to what real managers do: one process per session in a process group and working directory of its own, the environment they
set, readiness by the socket file's existence, one connection, calls never at the same time, one leave (asked again while it is not
answered with 0), then SIGTERM to the group. Where a real one waits for ever this one has a deadline, and where a real one looks away
it looks on: `Binding.unbind` tells how the process ended. Needs the extra ``grpc``.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flame_host.wire.client import Answer, InstanceClient

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_POLL = 0.001
INSTALL_FAILED, START_FAILED, ENTER_FAILED = 10, 11, 12
"""Codes of a bind that failed, as a session's events show them."""


class BindError(Exception):
    """The session could not be bound.

    Attributes:
        code: one of a manager's bind codes. message: what a session event would say.
    """

    def __init__(self, code: int, message: str) -> None:
        super().__init__(f"bind failed with code {code}: {message}")
        self.code = code
        self.message = message


@dataclass(frozen=True)
class Registration:
    """An application as it was registered with the cluster; the default runs our host."""

    name: str = "app"
    command: str = sys.executable
    arguments: Sequence[str] = ("-m", "flame_host")
    environments: Mapping[str, str] = field(default_factory=dict)
    working_directory: str | None = None
    url: str | None = None
    installer: str | None = None
    image: str | None = None


@dataclass(frozen=True)
class Ending:
    """How an application process ended after SIGTERM.

    Attributes:
        seconds: from SIGTERM until it was gone. killed: it did not go in time and was killed.
        leaves: how often it was asked to leave. socket_left: the socket file was still there. stdout, stderr: all it printed.
    """

    return_code: int
    seconds: float
    killed: bool
    leaves: int
    socket_left: bool
    stdout: str
    stderr: str


class ExecutorManager:
    """A node of a simulated cluster.

    Args:
        directory: for sockets, logs and working directories; keep its path short, sockets live there.
        environment: of the manager itself, which its processes inherit; this process's by default.
        endpoint, cache: of the cluster, told to the processes.
        patience: seconds to wait for a socket. leave_seconds: for the answer to a leave. limit: bytes of the largest message sent.
    """

    def __init__(
        self,
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        endpoint: str = "http://127.0.0.1:8080",
        cache: str = "",
        patience: float = 30.0,
        leave_seconds: float = 10.0,
        limit: int = 4 << 20,
    ) -> None:
        self.directory = directory
        self.patience = patience
        self.leave_seconds = leave_seconds
        self.limit = limit
        self._environment = dict(os.environ if environment is None else environment)
        self._cluster = {"FLAME_ENDPOINT": endpoint, **({"FLAME_CACHE_ENDPOINT": cache} if cache else {})}
        self._bindings: list[Binding] = []

    def bind(self, registration: Registration, session_id: str, common_data: bytes | None = None) -> Binding:
        """Start a process for the session, connect, enter.

        Raises:
            BindError: as a manager would report it; the process has been told to leave and is gone.
        """
        binding = Binding(self, registration, session_id)
        self._bindings.append(binding)
        binding.start(common_data)
        return binding

    def close(self) -> None:
        """Unbind whatever is still bound."""
        for binding in self._bindings:
            binding.unbind()
        self._bindings.clear()

    def __enter__(self) -> ExecutorManager:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def environment_of(self, registration: Registration, socket: Path, work: Path) -> dict[str, str]:
        """The manager's own, overlaid by the application's and by what the manager tells."""
        own = self._environment
        environment = {**own, **{name: expand(value, own) for name, value in registration.environments.items()}}
        for name in ("TMPDIR", "TEMP", "TMP"):
            if name not in registration.environments:
                environment[name] = str(work / "tmp")
        level = own.get("RUST_LOG", "info")
        told = {"FLAME_INSTANCE_ENDPOINT": str(socket), "FLAME_LOG": level, "RUST_LOG": level, "HOME": own.get("HOME", "/")}
        return {**environment, **told, **self._cluster}


class Binding:
    """A process bound to a session."""

    def __init__(self, manager: ExecutorManager, registration: Registration, session_id: str) -> None:
        self.executor_id = str(uuid.uuid4())
        self.session_id = session_id
        self.registration = registration
        self.socket = manager.directory / f"{self.executor_id}.sock"
        self.ready_after = 0.0
        self._manager = manager
        self._process: subprocess.Popen[bytes] | None = None
        self._client: InstanceClient | None = None
        self._tasks = 0
        self._ending: Ending | None = None
        explicit = registration.working_directory
        self._directory = Path(explicit) if explicit else manager.directory / self.executor_id
        self._work = self._directory / "work" / registration.name
        self._own_directory = not explicit

    @property
    def pid(self) -> int:
        return self._process.pid if self._process else 0

    def start(self, common_data: bytes | None) -> None:
        from flame_host.wire.client import InstanceClient
        from flame_host.wire.contexts import ApplicationContext

        told = self.registration
        try:
            self._spawn()
            self._wait_for_socket()
            self._client = InstanceClient(self.socket, limit=self._manager.limit)
        except BaseException:
            self.unbind()
            raise
        context = ApplicationContext(told.name, told.image, told.command, told.working_directory, told.url, told.installer)
        answer = self._client.enter(self.session_id, context, common_data)
        if not answer.ok:
            self.unbind()
            raise BindError(ENTER_FAILED, f"on_session_enter failed: {answer.message}")

    def invoke(self, data: bytes | None, *, timeout: float | None = None) -> Answer:
        """Run one task; its number counts from 1."""
        if self._client is None:
            raise ValueError("unbound")
        self._tasks += 1
        return self._client.invoke(self.session_id, str(self._tasks), data, timeout=timeout)

    def unbind(self, *, patience: float = 10.0, most_leaves: int = 5) -> Ending:
        """Leave, SIGTERM to the group, clean up. Idempotent.

        Args:
            patience: seconds the process has to go; a real manager does not look. most_leaves: a real one never gives up.
        """
        if self._ending is not None:
            return self._ending
        leaves = 0
        if self._client is not None:
            while leaves < most_leaves:
                leaves += 1
                answer = self._client.leave(timeout=self._manager.leave_seconds)
                if answer.code == 0 or answer.status:
                    break
            self._client.close()
            self._client = None
        code, seconds, killed = self._terminate(patience)
        logs = [self._log(kind).read_text(errors="replace") if self._log(kind).exists() else "" for kind in ("out", "err")]
        socket_left = self.socket.exists()
        self._clean_up()
        self._ending = Ending(code, seconds, killed, leaves, socket_left, *logs)
        return self._ending

    def output(self) -> str:
        """What it has printed so far, both streams."""
        return "".join(self._log(kind).read_text(errors="replace") for kind in ("out", "err"))

    # ------------------------------------------------------------------------------------------------ parts

    def _spawn(self) -> None:
        (self._work / "tmp").mkdir(parents=True, exist_ok=True)
        environment = self._manager.environment_of(self.registration, self.socket, self._work)
        words = [expand(word, environment) for word in (self.registration.command, *self.registration.arguments)]
        try:
            with self._log("out").open("wb") as out, self._log("err").open("wb") as err:
                self._process = subprocess.Popen(
                    words, cwd=self._directory, env=environment, stdout=out, stderr=err, start_new_session=True
                )
        except OSError as error:
            raise BindError(START_FAILED, f"cannot start {words[0]}: {error}") from error

    def _wait_for_socket(self) -> None:
        assert self._process is not None
        begun = time.monotonic()
        while not self.socket.exists():
            if self._process.poll() is not None:
                raise BindError(START_FAILED, f"the process exited with {self._process.returncode}: {self.output()[-4000:]}")
            if time.monotonic() - begun > self._manager.patience:
                raise BindError(START_FAILED, f"no socket after {self._manager.patience:g} s: {self.output()[-4000:]}")
            time.sleep(_POLL)
        self.ready_after = time.monotonic() - begun

    def _terminate(self, patience: float) -> tuple[int, float, bool]:
        process = self._process
        if process is None:
            return 0, 0.0, False
        begun = time.monotonic()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        try:
            return process.wait(patience), time.monotonic() - begun, False
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            return process.wait(), time.monotonic() - begun, True

    def _log(self, kind: str) -> Path:
        return self._directory / f"{self.executor_id}.{kind}"

    def _clean_up(self) -> None:
        """The temporary directory always goes; a working directory only if the manager made it."""
        self.socket.unlink(missing_ok=True)
        shutil.rmtree(self._work, ignore_errors=True)
        if self._own_directory:
            shutil.rmtree(self._directory, ignore_errors=True)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$NAME`` and ``${NAME}``; unknown ones stay as they are."""
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), text)


def descendants(pid: int) -> Iterator[int]:
    """Processes below one, for tests that look for what was left behind. Linux only."""
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            for child in map(int, task.read_text().split()):
                yield child
                yield from descendants(child)
