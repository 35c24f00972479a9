"""Start a worker process, and know how it ended."""

from __future__ import annotations

import contextlib
import errno
import json
import mmap
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from subprocess import DEVNULL, Popen
from typing import NamedTuple, Protocol

from flame_host.api import WorkerStartError
from flame_host.worker.runtime.channel import ChannelClosed

_HERE = Path(__file__).parent
_PREPARE = (
    "import sys; sys.path.insert(0, sys.argv[1]); from runtime import bootstrap, zygote; del sys.path[0];"
    "[sys.modules.pop(name) for name in list(sys.modules) if name.partition('.')[0] == 'runtime'];"
)
_START_WORKER = _PREPARE + "bootstrap.main(3, 4, 5)"
_START_ZYGOTE = _PREPARE + "zygote.main(3, bootstrap.main)"
"""Imported, not run as a script: a script is compiled anew at every start. Their names are given back to the
application."""

_SOCKET_BUFFER = 4 << 20


class Descriptor(Protocol):
    """One that is to be sent to another process."""

    @property
    def fd(self) -> int: ...


class Sender(Protocol):
    """Sends without waiting; see `flame_host.engine.outbox.Outbox`, which is one."""

    def send(self, data: bytes, segments: Sequence[Descriptor] = ()) -> None: ...


class WorkerExit(NamedTuple):
    """How a worker ended.

    Attributes:
        words: for a sentence that begins with "the worker". code: what it exited with, None when a signal ended it or nothing is known.
        signal: what ended it, if one did.
    """

    words: str
    code: int | None = None
    signal: int | None = None


class Guardian:
    """The client's side of ``guardian.py``: starts workers, reports their ends, and takes all of them along when this process ends.

    Nothing here waits for it, as it may be busy starting an interpreter: orders go through what ``sender`` makes of its socket.
    """

    def __init__(self, sender: Callable[[socket.socket], Sender]) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = Popen(
                [sys.executable, "-I", "-S", str(_HERE / "guardian.py"), str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=DEVNULL,
            )
        self._sock = ours
        self._orders = sender(ours)
        self._lock = threading.RLock()  # a finalizer may kill a worker while this thread starts one
        self._workers: dict[int, WorkerProcess] = {}
        self._last = 0
        self._closed = False
        self._buffer = b""
        os.register_at_fork(after_in_child=self._forget)

    @property
    def pid(self) -> int:
        return self._process.pid

    def fileno(self) -> int:
        return self._sock.fileno()

    def spawn(
        self, python: Path, environment: Mapping[str, str], ahead: Mapping[str, object], worker: WorkerProcess, descriptors: Sequence[int]
    ) -> int:
        """Order a process; `WorkerProcess.started` or `WorkerProcess.ended` of the worker is called from `read`.

        The descriptors are duplicates of the caller's: they are closed when they have been sent.
        """
        with self._lock:
            if self._closed:
                raise WorkerStartError("the guardian process is gone, no worker can be started", hint="open a new Runner")
            self._last += 1
            name = self._last
            self._workers[name] = worker
            order = {
                "id": name,
                "argv": [str(python), "-I", "-c", _START_WORKER, str(_HERE)],
                "zygote": [str(python), "-I", "-c", _START_ZYGOTE, str(_HERE), json.dumps(ahead)],
                "environment": dict(environment),
                "descriptors": len(descriptors),
            }
            self._orders.send(json.dumps(order).encode() + b"\n", [_Duplicate(fd) for fd in descriptors])
        return name

    def kill(self, name: int) -> None:
        self._orders.send(json.dumps({"kill": name}).encode() + b"\n")

    def read(self) -> None:
        """Take what the guardian has to say; called when its descriptor is readable."""
        try:
            data = self._sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._lost()
            return
        *lines, self._buffer = (self._buffer + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            worker = self._workers.get(message["id"])
            if worker is None:
                continue
            if "pid" in message:
                worker.started(message["pid"])
            else:
                del self._workers[message["id"]]
                worker.ended(message.get("status"), message.get("error", ""))

    def _lost(self) -> None:
        with self._lock:
            self._closed = True
            workers, self._workers = self._workers, {}
        for worker in workers.values():
            worker.ended(None, "the guardian process is gone")
        raise ChannelClosed("the guardian process is gone")

    def close(self) -> None:
        """End it, and with it every process below it."""
        with self._lock:
            self._closed = True
        try:
            self._sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._process.wait()
        self._sock.close()

    def _forget(self) -> None:
        """In a forked child of the client: were its copy kept open, the guardian would not notice the client's end."""
        self._sock.close()


class _Duplicate:
    """A descriptor of our own for as long as it has not been sent."""

    def __init__(self, fd: int) -> None:
        self.fd = os.dup(fd)

    def __del__(self) -> None:
        os.close(self.fd)


class WorkerProcess:
    """One worker: its sockets, its output, its progress, its end.

    Attributes:
        pid: 0 until it runs. status: as ``waitpid`` gives it; None while it runs, and when it is not known.

    ``ahead`` says what may be imported before the worker is forked: ``modules``, and the ``paths`` and ``support`` to find them on.
    """

    latency = 0.0

    def __init__(
        self,
        guardian: Guardian,
        python: Path,
        environment: Mapping[str, str],
        ahead: Mapping[str, object],
        on_end: Callable[[], None] = lambda: None,
    ) -> None:
        self.pid = 0
        self.status: int | None = None
        self.problem = ""
        self.gone = threading.Event()
        self._on_end = on_end
        self._guardian = guardian
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as ours:
            try:
                descriptors = self._open(ours, theirs)
            except OSError as error:
                hint = "raise the limit of open files: ulimit -n" if error.errno in (errno.EMFILE, errno.ENFILE) else ""
                raise WorkerStartError(f"no worker can be started: {error.strerror}", hint=hint) from error
            self._name = guardian.spawn(python, environment, ahead, self, descriptors)
            ours.pop_all()

    def _open(self, ours: contextlib.ExitStack, theirs: contextlib.ExitStack) -> list[int]:
        """Everything the two sides share; returns the worker's ends. The stacks close what was opened."""
        self._progress_fd = os.memfd_create("flame-progress", os.MFD_CLOEXEC)
        ours.callback(os.close, self._progress_fd)
        os.ftruncate(self._progress_fd, mmap.PAGESIZE)
        self._map = ours.enter_context(mmap.mmap(self._progress_fd, mmap.PAGESIZE))
        self.data, data = socket.socketpair()
        ours.enter_context(self.data)
        theirs.enter_context(data)
        self.control, control = socket.socketpair()
        ours.enter_context(self.control)
        theirs.enter_context(control)
        self.stdout, stdout = os.pipe()
        ours.callback(os.close, self.stdout)
        theirs.callback(os.close, stdout)
        self.stderr, stderr = os.pipe()
        ours.callback(os.close, self.stderr)
        theirs.callback(os.close, stderr)
        for end in (self.data, data):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SOCKET_BUFFER)
        return [data.fileno(), control.fileno(), self._progress_fd, stdout, stderr]

    @property
    def begun(self) -> int:
        """How many calls it has begun; it counts in shared memory, so the number outlives it."""
        return 0 if self._map.closed else int.from_bytes(self._map[:8], sys.byteorder)

    @property
    def at_rest(self) -> bool:
        """It has answered every call that has reached it, and waits for more."""
        return not self._map.closed and self._map[16:24] == self._map[:8]

    @property
    def deaf(self) -> bool:
        """A task has closed its descriptors, so it ended without telling what it had done."""
        return not self._map.closed and bool(self._map[8])

    def started(self, pid: int) -> None:
        self.pid = pid

    def ended(self, status: int | None, problem: str) -> None:
        self.status = status
        self.problem = problem
        self.gone.set()
        try:
            self.data.shutdown(socket.SHUT_RDWR)  # a child that it forked may hold the other end: wake the reader
        except OSError:
            pass
        self._on_end()

    def kill(self) -> None:
        self._guardian.kill(self._name)

    def how_it_ended(self) -> WorkerExit:
        if self.status is None:
            return WorkerExit(self.problem or "ended in an unknown way")
        if os.WIFSIGNALED(self.status):
            number = os.WTERMSIG(self.status)
            return WorkerExit(f"was killed by {_signal_name(number)}", signal=number)
        code = os.WEXITSTATUS(self.status)
        return WorkerExit("had its descriptors closed by a task" if self.deaf else f"exited with code {code}", code)

    def close(self) -> None:
        """Let go of every descriptor; a worker still running ends by that."""
        self.data.close()
        self.control.close()
        self._map.close()
        for name in ("stdout", "stderr", "_progress_fd"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
