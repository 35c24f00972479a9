"""The ``flame.v1.Instance`` service: any `Service` behind a Unix socket, as an executor manager expects it.

The manager takes the socket file for the sign that the process is ready, and connects once. So the server listens under another
name, in a directory of its own that nobody else can enter whatever the umask, and the file gets its place when it answers and only this
user can connect: renaming a socket keeps what is listening on it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc

from flame_host.api import ConfigError, SessionError
from flame_host.wire.contexts import ApplicationContext, Service, SessionContext, TaskContext
from flame_host.wire.endpoint import ENDPOINT_VARIABLE, PARENT, check_path, endpoint
from flame_host.wire.flame.v1 import shim_pb2, shim_pb2_grpc, types_pb2
from flame_host.wire.outcomes import MESSAGE_LIMIT, OUTPUT_LIMIT, Failure, ReturnCode, failure_of

log = logging.getLogger(__name__)

_FRAMING = 64 << 10
_STOP_SECONDS = 3.0
_LOOK_SECONDS = 1.0
_SILENCE_SECONDS = 60.0

OPTIONS = (("grpc.max_receive_message_length", MESSAGE_LIMIT + _FRAMING), ("grpc.max_send_message_length", MESSAGE_LIMIT))
"""What a cluster lets through comes in, whatever fields it is wrapped in here; what goes out has to fit the cluster's limit."""


class InstanceServicer(shim_pb2_grpc.InstanceServicer):
    """Translates calls; whatever a service does, the answer is an answer.

    Attributes:
        called: a manager has entered a session. entered: the session that is entered now, None when none is.
    """

    def __init__(self, service: Service) -> None:
        self._service = service
        self.called = False
        self.entered: str | None = None

    def OnSessionEnter(self, request: shim_pb2.SessionContext, context: grpc.ServicerContext) -> types_pb2.Result:
        self.called = True
        self.entered = None
        try:
            if self._service.on_session_enter(session_context(request)) is False:
                raise Failure(ReturnCode.FAILED, f"{type(self._service).__name__}.on_session_enter returned False")
        except BaseException as error:
            failure = failure_of(error)
            log.error("session %s was not entered: %s", request.session_id, failure.text)
            return types_pb2.Result(return_code=failure.code, message=failure.text)
        self.entered = request.session_id
        return types_pb2.Result(return_code=ReturnCode.OK)

    def OnTaskInvoke(self, request: shim_pb2.TaskContext, context: grpc.ServicerContext) -> types_pb2.TaskResult:
        task = TaskContext(request.task_id, request.session_id, request.input if request.HasField("input") else None)
        try:
            if request.session_id != self.entered:
                raise SessionError(f"task {task.task_id!r:.100} is of session {task.session_id!r:.100}, which is not entered here")
            output = output_of(self._service.on_task_invoke(task))
        except BaseException as error:
            failure = failure_of(error)
            log.warning("task %s of session %s failed: %s", request.task_id, request.session_id, failure.text)
            return types_pb2.TaskResult(return_code=failure.code, message=failure.text)
        return types_pb2.TaskResult(return_code=ReturnCode.OK, output=output)

    def OnSessionLeave(self, request: types_pb2.EmptyRequest, context: grpc.ServicerContext) -> types_pb2.Result:
        self.entered = None
        try:
            self._service.on_session_leave()
        except BaseException:
            # Any other answer makes the manager ask again and again, for ever.
            log.exception("leaving the session failed")
        return types_pb2.Result(return_code=ReturnCode.OK)


def session_context(request: shim_pb2.SessionContext) -> SessionContext:
    """From the wire; a field that was left out is None."""
    told = request.application
    optional = ("image", "command", "working_directory", "url", "installer")
    fields = {name: getattr(told, name) for name in optional if told.HasField(name)}
    data = request.common_data if request.HasField("common_data") else None
    return SessionContext(request.session_id, ApplicationContext(told.name, **fields), data)


def output_of(value: object) -> bytes | None:
    """The bytes of what a service returned: bytes-like, something with such a ``data``, or None."""
    if value is not None and not isinstance(value, (bytes, bytearray, memoryview)):
        if not hasattr(value, "data"):
            raise TypeError(f"on_task_invoke returned {type(value).__qualname__}; it returns bytes, a TaskOutput of bytes, or None")
        value = value.data
    if value is None:
        return None
    if not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"on_task_invoke returned a TaskOutput of {type(value).__qualname__}; its data is bytes or None")
    data = bytes(value)
    if len(data) > OUTPUT_LIMIT:
        raise Failure(
            ReturnCode.BAD_PAYLOAD,
            f"the output has {len(data)} bytes and a message carries {OUTPUT_LIMIT}; put it into the cache and return its reference",
        )
    return data


class InstanceServer:
    """A running server. ``start``, then ``stop``; one thread serves, since a manager never calls twice at a time."""

    def __init__(self, service: Service, path: Path) -> None:
        self._path = path
        # The process id makes the name this server's own; it is no longer than the names of executors, which are UUIDs.
        self._hidden = path.with_name(f".{os.getpid():x}.{id(self) & 0xFFFFFF:x}") / "s"
        self._inode = 0
        self._server = grpc.server(ThreadPoolExecutor(1, thread_name_prefix="flame-instance"), options=OPTIONS)
        self.servicer = InstanceServicer(service)
        shim_pb2_grpc.add_InstanceServicer_to_server(self.servicer, self._server)

    def start(self) -> None:
        """Returns when the socket file stands there and calls are answered.

        Raises:
            ConfigError: no socket can be made at that path.
        """
        try:
            check_path(self._path)
            self._hidden.parent.mkdir(0o700)
            self._server.add_insecure_port(f"unix:{self._hidden}")
            self._server.start()
            os.chmod(self._hidden, 0o700)
            self._inode = os.stat(self._hidden).st_ino
            os.rename(self._hidden, self._path)
            self._hidden.parent.rmdir()
        except (OSError, RuntimeError) as error:
            self._server.stop(0)
            shutil.rmtree(self._hidden.parent, ignore_errors=True)
            raise ConfigError(f"cannot serve on {self._path}: {error}", hint=f"check {ENDPOINT_VARIABLE} and its directory") from error

    def stop(self, grace: float = 0.0) -> None:
        """Take the socket away, then end the calls under way after the grace given. Idempotent."""
        for path in (self._path, self._hidden):
            try:
                if os.lstat(path).st_ino == self._inode:  # not one that another process put there
                    os.unlink(path)
            except (FileNotFoundError, NotADirectoryError):
                pass
        self._server.stop(grace).wait(grace + 1)


def serve(service: Service, path: Path | None = None, *, on_stop: Callable[[], None] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, or until the process that started this one is gone. Call it from the main thread.

    Args:
        path: of the socket; by default what the environment says. on_stop: ends whatever the service started; a task under way
            may still be waiting for it.
    """
    server = InstanceServer(service, path or endpoint())
    with _signals(signal.SIGTERM, signal.SIGINT) as came:
        try:
            server.start()
            begun = time.monotonic()
            while not came(_LOOK_SECONDS) and not _abandoned(server, begun):
                pass
            # A task in an endless loop holds its thread, and the interpreter would wait for it.
            watchdog = threading.Timer(_STOP_SECONDS, os._exit, (128 + signal.SIGTERM,))
            watchdog.daemon = True
            watchdog.start()
        finally:
            if on_stop is not None:
                on_stop()
            server.stop(grace=0)


def _abandoned(server: InstanceServer, begun: float) -> bool:
    """Whether the manager is gone: killed, it cannot send a signal, and the next one knows nothing of this process.

    Where it was gone before it could be known, or is init itself, only its silence tells: managers enter as soon as they can.
    """
    if PARENT != 1:
        return os.getppid() != PARENT
    return not server.servicer.called and time.monotonic() - begun > _SILENCE_SECONDS


@contextlib.contextmanager
def _signals(*numbers: signal.Signals) -> Iterator[Callable[[float], bool]]:
    """Yields a function that waits some seconds for one of these signals.

    The interpreter itself writes their numbers to a pipe, at once: Python code in a handler runs only when the main thread is back
    from the call it is in, or just about to make; and an event's lock may be held by the very thread the handler interrupts.
    """
    waiting, writing = os.pipe()
    os.set_blocking(writing, False)
    earlier = signal.set_wakeup_fd(writing)
    previous = {number: signal.signal(number, lambda *_: None) for number in numbers}

    def came(seconds: float) -> bool:
        ready, _, _ = select.select([waiting], [], [], seconds)
        return bool(ready) and any(byte in numbers for byte in os.read(waiting, 512))

    try:
        yield came
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(earlier)
        os.close(waiting)
        os.close(writing)
