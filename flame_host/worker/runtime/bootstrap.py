"""The worker's side: runs in the application's interpreter, standard library only, Python 3.8 syntax.

Life of a worker: START names its paths, limits and codecs and carries the execution object; READY answers, or ERROR. Then CALL
frames come on the data socket and RESULT or ERROR frames go back, in order. Beside the main thread, which does that, one serves the
control socket (`control.listen`). What the two share, and who may touch it when, is drawn in docs/explanation/task-path.md.
"""

from __future__ import annotations

import importlib
import json
import mmap
import os
import signal
import socket
import sys
import threading
import time
from collections import deque

from . import control, isolation
from .channel import (
    CALL,
    ERROR,
    INLINE_LIMIT,
    QUICK,
    READY,
    RESULT,
    SPIN,
    START,
    STATE,
    WITH_PARTS,
    ChannelClosed,
    Receiver,
    decode,
    encode,
    view_of,
    writable_view_of,
)
from .copies import copy_on_write
from .coroutines import Coroutines
from .forked import Forks
from .interruption import INTERRUPTION, Interrupted, RunningTask
from .memory import Mapped
from .output import TaskOutput
from .replies import Replies
from .report import error_report
from .streams import Credit, send_items

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .channel import Frame, Reference

_REPLY_DELAY = 0.001  # seconds a reply may wait for company
_PUBLIC = frozenset({b"__call__", b"__sizeof__"})  # the latter is how a host asks whether a worker is ready
_PLAIN = frozenset({int, float, str, bool, type(None), bytes})
_NOTHING: Sequence[Any] = ()


class Worker:
    """State of this process. ``home`` puts back what a task changes; see `isolation.Home`."""

    def __init__(self, data_fd: int, control_fd: int, progress_fd: int, home: isolation.Home) -> None:
        self.data = socket.socket(fileno=data_fd)
        self.control = socket.socket(fileno=control_fd)
        self.receiver = Receiver(self.data)
        self.queue: deque[Frame] = deque()
        self.reading = threading.Lock()
        self.progress = memoryview(mmap.mmap(progress_fd, mmap.PAGESIZE)).cast("Q")
        self.task = RunningTask()
        self.replies = Replies(self.data, self.control, self.progress, self.task)
        self.credit = Credit()
        self.give_credit: Callable[[int, int], None] = self.credit.give
        self.coroutines = Coroutines()
        self.home = home
        self.started = 0
        self.pid = os.getpid()
        self.target: Any = None
        self.methods: dict[bytes, Callable[..., Any]] = {}
        self.codecs: dict[str, Any] = {}
        self.dumps: Any = None
        self.loads: Any = None
        self.mapped = Mapped()
        self.checkpoint = self.unsaved = 0
        self.forked: Forks | None = None
        self.public_only = False
        self.hurried = False

    # ------------------------------------------------------------------------------------------------ start

    def start(self) -> bool:
        """Take the START frame; answer READY or ERROR. Returns whether there is anything to do."""
        frames: list[Frame] = []
        while not frames:
            frames = [frame for frame in self.receiver.receive() if frame[0] == START]
        data, _, references = decode(frames[0])
        order = json.loads(bytes(view_of(data)))
        try:
            self._settle_in(order)
            self._load(order, references[0])
        except BaseException as error:
            kind = "exit" if isinstance(error, SystemExit) else "load"
            self.replies.add(ERROR, 0, error_report(error, self.dumps, kind))
            self.replies.flush()
            return False
        self.replies.add(READY, 0, json.dumps({"pid": self.pid, "python": sys.version.split()[0]}).encode())
        self.replies.flush()
        return True

    def _settle_in(self, order: dict[str, Any]) -> None:
        os.environ.update(order["variables"])
        if order["cwd"]:
            os.chdir(order["cwd"])
        if order.get("contents"):
            copy_on_write(order["contents"])
        isolation.limit(order["limits"])
        self.checkpoint = order["checkpoint"]
        sys.path[:0] = order["paths"]
        sys.path.append(order["support"])
        sys.argv = [order["name"]]
        self.codecs.update(order["codecs"])
        codec = self._codec(order["format"])
        self.dumps, self.loads = codec.dumps, codec.loads
        self.stdout = sys.stdout = sys.__stdout__ = TaskOutput(self.replies.log, "stdout", 1)  # type: ignore[misc,assignment]
        self.stderr = sys.stderr = sys.__stderr__ = TaskOutput(self.replies.log, "stderr", 2)  # type: ignore[misc,assignment]

    def _codec(self, format: str) -> Any:
        """The module that reads and writes it; imported when it is first asked for."""
        module = self.codecs.get(format)
        if module is None:
            raise ValueError("payload of format %r is not admitted here; admitted: %s" % (format, ", ".join(self.codecs)))
        if isinstance(module, str):
            module = self.codecs[format] = importlib.import_module(module)
        return module

    def _load(self, order: dict[str, Any], reference: Reference) -> None:
        format, data, buffers = reference
        codec = self._codec(format)
        load = getattr(codec, "loads_code", codec.loads)  # a door of its own, where a format has one
        self.public_only = order["inside"] is not None
        limited = order["inside"] is not None and load is not codec.loads
        allow = {"allow": isolation.inside(order["inside"])} if limited else {}
        target = load(view_of(data), buffers=[writable_view_of(part) for part in buffers], **allow)
        if order["instantiate"]:
            target = target()
        self.target = target
        self.methods = {b"": target}
        signal.signal(INTERRUPTION, self.task.check)
        self.home.remember()  # what one task changes, the next does not see
        if order["isolation"] == "process":
            self.forked = Forks(self)

    # ------------------------------------------------------------------------------------------------ calls

    def serve(self) -> None:
        """Run calls until the host goes away."""
        queue, clock, append, replies = self.queue, time.monotonic, self.queue.append, self.replies
        while True:
            try:
                while queue:
                    if replies.waiting and clock() - replies.since > _REPLY_DELAY:
                        replies.flush()
                    try:
                        frame = queue.popleft()
                    except IndexError:  # handed back by the control thread in between
                        break
                    if self.forked is None:
                        self.run(frame)
                    else:
                        self.forked(frame)
                replies.flush()
                self.progress[2] = self.started  # all is answered: see WorkerProcess.at_rest
                self.home.next_look = 0.0  # nothing else to do: nobody waits for it
                self.home.look()
                with self.reading:
                    for frame in self._receive():
                        if frame[0] == CALL:
                            append(frame)
            except Interrupted:  # came too late for its task
                continue
            except ChannelClosed:
                return

    def leave(self) -> None:
        """Told to end: what the execution object has outside of this process, it takes along."""
        leave = getattr(type(self.target), "__flame_leave__", None)
        if leave is not None:
            leave(self.target)

    def _receive(self) -> list[Frame]:
        """Wait for frames; awake at first, if the last ones came at once and nobody else is likely to want the core."""
        since = time.monotonic()
        frames = self.receiver.spin() if self.hurried else None
        if frames is None:
            frames = self.receiver.receive()
        self.hurried = bool(frames) and bool(frames[-1][1] & SPIN) and time.monotonic() - since < QUICK
        return frames

    def run(self, frame: Frame) -> None:
        """One call, to its answer."""
        _, flags, extra, number, body, _ = frame
        task = self.task
        self.started += 1
        self.progress[0] = self.started
        task.number = number
        task.busy = True
        try:
            try:
                if task.unwanted:
                    task.check()
                if flags & WITH_PARTS:
                    value = self._call_with_parts(frame)
                else:
                    method = self.methods.get(body[:extra])
                    if method is None:
                        method = self._method(body[:extra])
                    args, kwargs = self.loads(body[extra:])
                    value = method(*args, **kwargs)
                if type(value) in _PLAIN:
                    data, buffers = self.dumps(value), _NOTHING
                else:
                    data, buffers = self._encode(value, number)
                if self.checkpoint:
                    self._save(number)
            finally:
                task.busy = False
        except BaseException as error:
            self._stay_alone()
            self.fail(number, error)
        else:
            self._stay_alone()
            if buffers or len(data) > INLINE_LIMIT:
                self._send_large(number, data, buffers)
            else:
                self.replies.add(RESULT, number, data)
        self._clean_up()

    def _save(self, number: int) -> None:
        """Send the object as it is after this call, ahead of the answer: whoever has that has the state, too."""
        self.unsaved += 1
        if self.unsaved >= self.checkpoint:
            data, buffers = self._dumped(self.target)
            self.task.undisturbed(self.replies.send_parts, STATE, number, data, buffers)
            self.unsaved = 0

    def _send_large(self, number: int, data: bytes, buffers: Sequence[Any]) -> None:
        try:
            frame, segments = encode(RESULT, number, data, buffers)
        except Exception as error:  # no room for a segment, or more than a frame can hold
            self.fail(number, error)
        else:
            self.replies.send_frame(frame, segments)

    def _stay_alone(self) -> None:
        """A child forked by the task that came back here must not answer for us."""
        if os.getpid() != self.pid:
            os._exit(0)

    def _clean_up(self) -> None:
        self.home.look()
        if sys.stdout is not self.stdout or sys.stderr is not self.stderr:
            sys.stdout, sys.stderr = self.stdout, self.stderr
        if self.stdout.partial or self.stderr.partial:
            self.stdout.flush()
            self.stderr.flush()
        self.task.number = 0

    def _method(self, name: bytes) -> Callable[..., Any]:
        if name not in self.methods:
            if self.public_only and name[:1] == b"_" and name not in _PUBLIC:
                raise AttributeError("%s is private, and policy says pickle = deny" % name.decode())
            self.methods[name] = getattr(self.target, name.decode())
        return self.methods[name]

    def _call_with_parts(self, frame: Frame) -> Any:
        data, buffers, references = decode(frame)
        if references:
            references = self.mapped.again(references)

        def resolve(index: int) -> Any:
            format, content, parts = references[index]
            return self._codec(format).loads(view_of(content), buffers=[memoryview(view_of(part)) for part in parts])

        args, kwargs = self.loads(view_of(data), buffers=[memoryview(view_of(part)) for part in buffers], resolve=resolve)
        return self._method(frame[4][: frame[2]])(*args, **kwargs)

    def _encode(self, value: Any, number: int) -> tuple[bytes, Sequence[Any]]:
        if hasattr(value, "__await__") and not isinstance(value, type):
            value = self.coroutines.run(value)
        if hasattr(value, "__anext__"):
            value = self.coroutines.iterate(value)
        if hasattr(value, "__next__") and hasattr(value, "send"):
            value = send_items(value, number, self._dumped, self.replies, self.task, self.credit)
        return self._dumped(value)

    def _dumped(self, value: Any) -> tuple[bytes, Sequence[Any]]:
        buffers: list[Any] = []
        try:
            data = self.dumps(value, buffers=buffers)
        except Interrupted:
            raise
        except BaseException as error:
            raise _Unpicklable(error) from error
        return data, buffers

    def fail(self, number: int, error: BaseException) -> None:
        """Answer with an error."""
        kind = "raised"
        path = ""
        if isinstance(error, _Unpicklable):
            error, kind = error.args[0], "unpicklable-result"
            path = getattr(error, "path", "")
        elif isinstance(error, SystemExit):
            kind = "exit"
        elif isinstance(error, Interrupted):
            kind = "cancelled"
        self.replies.add(ERROR, number, error_report(error, None if kind == "cancelled" else self.dumps, kind, path, self.loads))
        del error


class _Unpicklable(Exception):
    """Carries the error of encoding a result."""


def main(data_fd: int, control_fd: int, progress_fd: int) -> None:
    """Entry point; see `flame_host.worker.process` for the command line."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the client's to act on
    worker = Worker(data_fd, control_fd, progress_fd, isolation.Home())
    threading.Thread(target=control.listen, args=(worker,), name="flame-control", daemon=True).start()
    try:
        if worker.start():
            worker.serve()
            worker.leave()
    except ChannelClosed:
        pass
    finally:
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except Exception:
                pass
        # Not sys.exit: threads and exit hooks that a task left behind must not keep the process.
        os._exit(0)
