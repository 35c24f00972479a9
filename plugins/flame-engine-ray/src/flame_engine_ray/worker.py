"""The client's side of one executor: the two channels of a worker, carried by actor calls.

What the session sends is gathered into exchanges: each takes along all frames that have come since the last, and returns with all that
the worker has answered by then. One is under way for as long as the session has work; a lone call is one actor call.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from flame_engine_ray.messages import CALL, End, News, Reply
from flame_engine_ray.segments import Place, RaySegment
from flame_host.transport import MemorySegment, Receiver, WorkerExit

if TYPE_CHECKING:
    from flame_host.api import HostServices
    from flame_host.transport import Link, Loop, Sending

_MOST = 2  # exchanges under way
_KILLING = 5.0  # seconds for the node to end its worker, before the actor is ended


class RayWorker:
    """See `flame_host.transport.Process`. Frames are sent by whichever thread has some; answers come in Ray's own threads, and are read
    by the session's.

    Attributes:
        pid: of the actor, where the worker's is not known. tail: the last of what the worker printed, once it has ended.
    """

    def __init__(self, actor: Any, number: int, executor: Any, services: HostServices, io: Loop, supervisor: Loop) -> None:
        self.actor = actor
        self.number = number
        self.pid = 0
        self.latency = 0.0
        self.deaf = False
        self.gone = threading.Event()
        self.tail = ""
        self.pending: list[Any] = []
        self._exchanging = actor.exchange  # made once: Ray makes a method anew for whoever asks
        self._executor = executor
        self._services = services
        self._io = io
        self._supervisor = supervisor
        self._begun = 0
        self._rests = True
        self._how = WorkerExit("ended in an unknown way")
        self._lost = False
        self._lock = threading.RLock()
        self._under_way = 0
        self._sent = 0
        self._next = 0
        self._early: dict[int, Reply] = {}
        self._over = False
        self._watched = False
        self._used = True
        self._pump: Callable[[], object] = _nothing
        self.line: deque[tuple[bytes, Sequence[MemorySegment]]] = deque()
        self._incoming = Incoming()

    def join(self, link: Link) -> Sending:
        self._pump = link.pump
        link.attach(self._incoming, self._incoming.receiver, self)
        return _Control(self.actor, self.number)

    @property
    def begun(self) -> int:
        """Of one that was lost it is not known how far it had come; a worker runs one call at a time, the oldest."""
        return self._executor.replied + bool(self._executor.inflight) if self._lost else self._begun

    @property
    def at_rest(self) -> bool:
        """By its last answer. While another is awaited, there may be work on the way to it that the last one did not know of."""
        return self._rests and not self._under_way

    def _has_work(self) -> bool:
        executor = self._executor
        return bool(executor.has_work or executor.recalling or executor.starting)

    # ------------------------------------------------------------------------------------------------ to the worker

    def send(self, data: bytes, segments: Sequence[MemorySegment] = ()) -> None:
        """See `flame_host.transport.Sending`. Descriptors' frames come without the frame that uses them, which follows at once."""
        with self._lock:
            if segments or self.line or self._under_way >= _MOST:  # it will be gathered
                self.line.append((data, segments))
                if segments or self._under_way >= _MOST:
                    return
                self._send_line()
            else:
                self._exchange(data, [])

    def _send_line(self) -> None:
        line = list(self.line)
        self.line.clear()
        travelling = [_travelling(segment) for _, segments in line for segment in segments]
        self._exchange(b"".join(data for data, _ in line), travelling)

    def _exchange(self, data: bytes, segments: list[Any]) -> None:
        """Under the lock, so that the numbers are in the order of the calls."""
        number = self._sent
        self._sent += 1
        self._under_way += 1
        self._used = True
        call = self._exchanging.remote(CALL.pack(self.number, number) + data, *([segments] if segments else ()))
        call.future().add_done_callback(partial(self._answered, time.monotonic()))

    # ------------------------------------------------------------------------------------------------ from the worker

    def _answered(self, since: float, future: Any) -> None:
        now = time.monotonic()
        try:
            reply = Reply.read(future.result())
        except BaseException as error:
            self.lost(error)
            return
        drained = False
        with self._lock:
            self._under_way -= 1
            if reply.order >= 0:
                self.latency += (max(now - since - reply.took, 0.0) - self.latency) / 4
                self._early[reply.order] = reply
            rests = self._deliver()
            if self.line:
                self._send_line()
                drained = True
            elif not self._under_way and not self._over and not rests and self._has_work():
                self._exchange(b"", [])
        if drained:
            self._pump()
        if not self._watched:
            self._watched = True
            self._io.watch(self)

    def _deliver(self) -> bool:
        """All that has come in its order; whether the worker seems to rest."""
        rests = False
        while (reply := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._begun, rests = reply.begun, reply.rests
            self._rests = rests
            if reply.data:
                self._incoming.add(reply.data, self._handed_over(reply.segments))
            if reply.over and not self._over:
                self._over = True
                self._incoming.end()
            if reply.news:
                end = News(*pickle.loads(reply.news)).end
                if end is not None:
                    self._end(end)
        return rests

    def _handed_over(self, announced: Sequence[Any]) -> list[RaySegment]:
        """Segments that the node has; from here on they are the client's, wherever they are."""
        if not announced:
            return []
        numbers = [number for number, _, _ in announced]
        references = self.actor.hand_over.options(num_returns=len(numbers)).remote(numbers)
        references = references if isinstance(references, list) else [references]
        self.pending = [reference for reference in self.pending if not ray.wait([reference], timeout=0, fetch_local=False)[0]] + references
        return [RaySegment(reference, size, Place(*place)) for reference, (_, size, place) in zip(references, announced, strict=True)]

    def tick(self, now: float) -> bool:
        """While it is used: have an exchange under way where answers are expected; that the worker seemed to rest was no promise."""
        with self._lock:
            if not self._under_way and not self._over and self._has_work():
                self._exchange(b"", [])
            used, self._used = self._used or self._under_way > 0, False
            self._watched = used and not self._over
            return self._watched

    # ------------------------------------------------------------------------------------------------ news, and the end

    def watch(self) -> None:
        """Be told of output, events and the end, from now on."""
        self.actor.watch.remote().future().add_done_callback(self._told)

    def _told(self, future: Any) -> None:
        try:
            reply = Reply.read(future.result())
        except BaseException as error:
            self.lost(error)
            return
        news = News(*pickle.loads(reply.news))
        for event in news.events:
            self._services.observe(event)
        for record in news.logs:
            self._supervisor.call(partial(self._services.log, record))
        if news.end is None:
            self.watch()
            return
        with self._lock:
            self._early[reply.order] = reply
            self._deliver()

    def lost(self, error: BaseException) -> None:
        """The actor is gone, or cannot be reached: with its process, or its node."""
        with self._lock:
            if self.gone.is_set():
                return
            self._over = self._lost = True
            self._incoming.end()
            self._end(End(f"was lost with its actor ({_in_short(error)})", None, None, False, ""))

    def _end(self, end: End) -> None:
        if self.gone.is_set():
            return
        self._how = WorkerExit(end.words, end.code, end.signal)
        self.deaf, self.tail = end.deaf, end.tail
        self.gone.set()
        self._executor.process_ended()

    def kill(self) -> None:
        if self.gone.is_set() or not ray.is_initialized():
            return
        self.actor.kill.remote(self.number)
        self._supervisor.later(_KILLING, self._end_actor)

    def _end_actor(self) -> None:
        if not self.gone.is_set() and ray.is_initialized():
            with contextlib.suppress(RayError):
                ray.kill(self.actor)

    def how_it_ended(self) -> WorkerExit:
        return self._how

    @property
    def leaves_actor(self) -> bool:
        """Whether its worker has ended and the actor can have another: nothing of this one is under way to it."""
        return self.gone.is_set() and not self._lost and not self._under_way

    def close(self) -> None:
        self._io.forget(self._incoming.fileno())
        self._incoming.close()


class Incoming:
    """What has come and was not read yet: to the session's side it is a socket, and a `Receiver` reads it.

    Its descriptor is readable while there is something.
    """

    def __init__(self) -> None:
        self._fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._chunks: deque[memoryview] = deque()
        self._over = False
        self._closing = threading.RLock()
        self.receiver = _SegmentReceiver(self)

    def fileno(self) -> int:
        return self._fd

    def add(self, data: bytes, segments: Sequence[RaySegment]) -> None:
        self.receiver.expect(segments)  # before the frames that use them
        self._chunks.append(memoryview(data))
        self._ring()

    def end(self) -> None:
        """Nothing follows."""
        self._over = True
        self._ring()

    def _ring(self) -> None:
        with self._closing:
            if self._fd >= 0:
                os.eventfd_write(self._fd, 1)

    def recvmsg_into(self, buffers: Sequence[memoryview], ancillary: int, flags: int) -> tuple[int, list[Any], int, None]:
        """As of a socket that does not wait. One thread at a time."""
        (buffer,) = buffers
        count = 0
        while self._chunks and count < len(buffer):
            chunk = self._chunks[0]
            some = min(len(chunk), len(buffer) - count)
            buffer[count : count + some] = chunk[:some]
            count += some
            if some < len(chunk):
                self._chunks[0] = chunk[some:]
            else:
                self._chunks.popleft()
        if not self._chunks and not self._over:
            with contextlib.suppress(BlockingIOError):
                os.eventfd_read(self._fd)
            if self._chunks or self._over:  # it came in between
                self._ring()
        if not count and not self._over:
            raise BlockingIOError
        return count, [], 0, None

    def close(self) -> None:
        with self._closing:
            if self._fd >= 0:
                os.close(self._fd)
            self._fd = -1


class _SegmentReceiver(Receiver):
    """Segments come as they are, without descriptors."""

    def expect(self, segments: Sequence[RaySegment]) -> None:
        self._descriptors.extend(segments)

    def _adopt(self, descriptor: RaySegment) -> RaySegment:
        return descriptor

    def close(self) -> None:
        self._descriptors.clear()


class _Control:
    """The control channel."""

    line: tuple[()] = ()

    def __init__(self, actor: Any, number: int) -> None:
        self._controlling = actor.control
        self._number = number

    def send(self, data: bytes, segments: Sequence[Any] = ()) -> None:
        self._controlling.remote(self._number, data)


def _travelling(segment: MemorySegment) -> tuple[Any, int, tuple[Any, ...] | None]:
    if not isinstance(segment, RaySegment):
        segment = RaySegment.put(segment.view())
    return segment.reference, segment.size, tuple(segment.place) if segment.place is not None else None


def _nothing() -> None:
    """Before there is a link."""


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
