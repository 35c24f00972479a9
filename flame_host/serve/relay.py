"""The execution object of sessions whose application is a program of its own: runs it, and hands tasks on to it.

It lives in a worker of the local engine, which runs the server's own interpreter, and so has the engine's care: one session at a time,
an end with the server's end, a second start where the first was killed. The program is run by the rules of executor managers.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flame_host.api import WorkerStartError
from flame_host.wire.client import InstanceClient
from flame_host.wire.contexts import ApplicationContext

_VARIABLE = re.compile(r"\$(?:\{(\w+)\}|(\w+))")
_POLL = 0.002
_LEAVE_SECONDS = 0.5
_END_SECONDS = 0.3


@dataclass(frozen=True)
class Program:
    """What is to be run.

    Attributes:
        context: as the program is told. command, arguments: what to run; a cluster's own programs are ours here.
        environments: as registered. told: what the server says to every program; wins. prefixes: put in front of variables of paths.
        sockets, work: directories, for sockets (its path is short) and for programs that have none of their own.
    """

    context: ApplicationContext
    command: str
    arguments: tuple[str, ...]
    environments: Mapping[str, str]
    told: Mapping[str, str]
    prefixes: Mapping[str, str]
    sockets: str
    work: str
    session_id: str
    common_data: bytes | None = field(repr=False)
    start_seconds: float = 110.0


class Relay:
    """One executor: a process from the first task to the last.

    Raises:
        WorkerStartError: it did not start, or would not enter the session.
    """

    def __init__(self, program: Program) -> None:
        self._program = program
        self._id = str(uuid.uuid4())
        self._socket = Path(program.sockets, f"{self._id}.sock")
        explicit = program.context.working_directory
        self._directory = Path(explicit) if explicit else Path(program.work, self._id)
        self._own = not explicit
        self._scratch = self._directory / "work" / program.context.name
        self._process: subprocess.Popen[bytes] | None = None
        self._client: InstanceClient | None = None
        try:
            self._process = self._started()
            self._wait_for_socket()
            self._client = InstanceClient(self._socket)
            answer = self._client.enter(program.session_id, program.context, program.common_data)
            if not answer.ok:
                raise WorkerStartError(f"on_session_enter failed: {answer.message or answer.status}")
        except BaseException:
            self.leave()
            raise

    def invoke(self, task_id: bytes, data: bytes | None) -> tuple[bytes | None, bytes | None, bytes | None]:
        """Output, no state, failure."""
        assert self._client is not None
        answer = self._client.invoke(self._program.session_id, task_id.decode(), data)
        if answer.ok:
            return answer.output, None, None
        text = answer.message or f"the task failed with code {answer.code}"
        if answer.status and self._process is not None and self._process.poll() is not None:
            # Whatever comes next would fail as well: this worker ends, and the engine starts another one.
            os.write(2, f"the program of {self._program.context.name} ended with {self._process.returncode} in a task\n".encode())
            os._exit(1)
        return None, None, text.encode("utf-8", "backslashreplace")

    def leave(self) -> None:
        """End the process as a manager does: leave, then SIGTERM to its group, and away with what it had. Called once, at the end."""
        client, self._client = self._client, None
        if client is not None:
            client.leave(timeout=_LEAVE_SECONDS)
            client.close()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_END_SECONDS)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        self._socket.unlink(missing_ok=True)
        shutil.rmtree(self._scratch, ignore_errors=True)
        if self._own:
            shutil.rmtree(self._directory, ignore_errors=True)

    __flame_leave__ = leave

    # ------------------------------------------------------------------------------------------------ parts

    def _started(self) -> subprocess.Popen[bytes]:
        program = self._program
        environment = self._environment()
        words = [expand(word, environment) for word in (program.command, *program.arguments)]
        if not words[0]:
            raise WorkerStartError(f"application {program.context.name!r} names no command", hint="register it with one")
        if self._own:
            self._directory.mkdir(parents=True, exist_ok=True)
        try:
            (self._scratch / "tmp").mkdir(parents=True, exist_ok=True)
            executable = words[0] if os.sep in words[0] else shutil.which(words[0], path=environment.get("PATH")) or words[0]
            return subprocess.Popen(
                words, executable=executable, cwd=self._directory, env=environment, stdin=subprocess.DEVNULL, start_new_session=True
            )
        except OSError as error:
            raise WorkerStartError(f"cannot start {words[0]!r} in {self._directory}: {error}") from error

    def _environment(self) -> dict[str, str]:
        program = self._program
        own = {name: value for name, value in os.environ.items() if name not in ("FLAME_INSTANCE_ENDPOINT",)}
        given = {name: expand(value, own) for name, value in program.environments.items()}
        environment = {**own, **given}
        for name in ("TMPDIR", "TEMP", "TMP"):
            if name not in given:
                environment[name] = str(self._scratch / "tmp")
        for name, prefix in program.prefixes.items():
            environment[name] = os.pathsep.join(filter(None, (prefix, environment.get(name, ""))))
        level = own.get("RUST_LOG", "info")
        return {**environment, **program.told, "FLAME_INSTANCE_ENDPOINT": str(self._socket), "FLAME_LOG": level, "RUST_LOG": level}

    def _wait_for_socket(self) -> None:
        assert self._process is not None
        until = time.monotonic() + self._program.start_seconds
        while not self._socket.exists():
            code = self._process.poll()
            if code is not None:
                raise WorkerStartError(f"the process exited with {code} before it served on its socket")
            if time.monotonic() > until:
                raise WorkerStartError(f"no socket after {self._program.start_seconds:g} s")
            time.sleep(_POLL)


def expand(text: str, variables: Mapping[str, str]) -> str:
    """``$NAME`` and ``${NAME}``; unknown ones stay as they are."""
    return _VARIABLE.sub(lambda match: variables.get(match[1] or match[2], match[0]), text)
