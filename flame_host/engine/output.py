"""Reads what a worker says beside its answers: output of the user's code, and bytes that went to its descriptors 1 and 2."""

from __future__ import annotations

import contextlib
import functools
import os
import socket
from collections import deque
from collections.abc import Callable

from flame_host.api import LogRecord
from flame_host.engine.loop import Loop
from flame_host.worker.process import WorkerProcess
from flame_host.worker.runtime.channel import LOG, ChannelClosed, Receiver

_CHUNK = 1 << 16


class OutputReader:
    """Lives in the supervisor's thread."""

    def __init__(self, process: WorkerProcess, session_id: str, number: int, log: Callable[[LogRecord], None], supervisor: Loop) -> None:
        self._process = process
        self._session_id = session_id
        self._number = number
        self._log = log
        self._supervisor = supervisor
        self._control = Receiver(process.control)
        self._recent: deque[str] = deque(maxlen=20)
        self._control_open = True
        self._pipes = {"stdout": process.stdout, "stderr": process.stderr}
        for fd in self._pipes.values():
            os.set_blocking(fd, False)
        supervisor.read(process.control.fileno(), self._read_control)
        for name, fd in self._pipes.items():
            supervisor.read(fd, functools.partial(self._read_pipe, name))

    def tail(self) -> str:
        """The last of what it printed, for error messages."""
        return "".join(self._recent)[-4000:].rstrip()

    def close(self) -> None:
        """Take what is left, then close all of the worker's descriptors."""
        while self._control_open and self._read_control():
            pass
        for name in list(self._pipes):
            while self._read_pipe(name):
                pass
        for fd in (self._process.control.fileno(), *self._pipes.values()):
            self._supervisor.forget(fd)
        self._process.close()

    def _read_control(self) -> bool:
        try:
            for kind, stream, _, number, body, _ in self._control.receive(socket.MSG_DONTWAIT):
                if kind == LOG:
                    self._emit("stdout" if stream == 1 else "stderr", number, body)
        except BlockingIOError:
            return False
        except ChannelClosed:
            self._control_open = False
            self._supervisor.forget(self._process.control.fileno())
            return False
        return True

    def _read_pipe(self, name: str) -> bool:
        fd = self._pipes[name]
        try:
            data = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            with contextlib.suppress(OSError):
                self._supervisor.forget(fd)
            return False
        self._emit(name, 0, data)
        return True

    def _emit(self, stream: str, task: int, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        self._recent.append(text)
        self._log(LogRecord(self._session_id, self._process.pid, task, stream, text))
