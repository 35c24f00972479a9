"""The client's side of one executor: the two channels of a worker, carried by actor calls.

The session writes to and reads from sockets, as it does everywhere. What stands at their far ends is gathered into exchanges: each
takes along all frames that have come since the last, and returns with all that the worker has answered by then. One is under way for
as long as the session has work; a lone call is one actor call.
"""

from __future__ import annotations

import array
import contextlib
import pickle
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from flame_engine_ray.messages import CALL, End, News, Reply
from flame_host.transport import MemorySegment, Outbox, WorkerExit

if TYPE_CHECKING:
    from flame_host.api import HostServices
    from flame_host.transport import Loop

_READ = 1 << 20
_ANCILLARY = socket.CMSG_SPACE(253 * array.array("i").itemsize)
_DESCRIPTORS_A_MESSAGE = 200
_MOST = 2  # exchanges under way
_KILLING = 5.0  # seconds for the node to end its worker, before the actor is ended


class RayWorker:
    """See `flame_host.transport.Process`. The answers of actor calls come in Ray's own threads, frames of the session in the io loop.

    Attributes:
        pid: of the actor, where the worker's is not known. tail: the last of what the worker printed, once it has ended.
    """

    def __init__(self, actor: Any, number: int, executor: Any, services: HostServices, io: Loop, supervisor: Loop) -> None:
        self.actor = actor
        self.number = number
        self._exchanging = actor.exchange  # made once: Ray makes a method anew for whoever asks
        self.pid = 0
        self.latency = 0.0
        self.at_rest = True
        self.deaf = False
        self.gone = threading.Event()
        self.tail = ""
        self.data, self._far = socket.socketpair()
        self.control, self._far_control = socket.socketpair()
        for sock in (self.data, self._far):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        self._executor = executor
        self._services = services
        self._io = io
        self._supervisor = supervisor
        self._begun = 0
        self._how = WorkerExit("ended in an unknown way")
        self._lost = False
        self._lock = threading.RLock()
        self._under_way = 0
        self._sent = 0
        self._paused = False
        self._next = 0
        self._early: dict[int, Reply] = {}
        self._buffer = bytearray(_READ)
        self._over = False
        self._watched = False
        self._used = True
        self._outbox = Outbox(self._far, io, self._drained)
        io.read(self._far.fileno(), self._frames)
        io.read(self._far_control.fileno(), self._orders)

    @property
    def begun(self) -> int:
        """Of one that was lost it is not known how far it had come; a worker runs one call at a time, the oldest."""
        return self._executor.replied + bool(self._executor.inflight) if self._lost else self._begun

    def _has_work(self) -> bool:
        executor = self._executor
        return executor.has_work or executor.recalling or executor.starting

    # ------------------------------------------------------------------------------------------------ to the worker

    def _frames(self) -> None:
        """In the io loop: the session has written."""
        with self._lock:
            if self._under_way >= _MOST:  # they will be gathered
                self._paused = True
                self._io.pause(self._far.fileno())
                return
            data, segments = self._written()
            if data:
                self._exchange(data, segments)

    def _written(self) -> tuple[bytes, list[bytes]]:
        pieces: list[bytes] = []
        segments: list[bytes] = []
        size = 0
        while size < _READ:
            try:
                count, ancillary, _, _ = self._far.recvmsg_into([self._buffer], _ANCILLARY, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                count, ancillary = 0, []
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors = array.array("i")
                    descriptors.frombytes(content)
                    segments += [bytes(MemorySegment.adopted(fd).view()) for fd in descriptors]
            if not count:  # the session has closed its end
                self._io.forget(self._far.fileno())
                break
            pieces.append(bytes(memoryview(self._buffer)[:count]))
            size += count
        return b"".join(pieces), segments

    def _exchange(self, data: bytes, segments: list[bytes]) -> None:
        """Under the lock, so that the numbers are in the order of the calls."""
        number = self._sent
        self._sent += 1
        self._under_way += 1
        self._used = True
        call = self._exchanging.remote(CALL.pack(self.number, number) + data, *([segments] if segments else ()))
        call.future().add_done_callback(partial(self._answered, time.monotonic()))

    def _orders(self) -> None:
        """In the io loop: something for the control channel."""
        try:
            data = self._far_control.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self.actor.control.remote(self.number, data)
        else:
            self._io.forget(self._far_control.fileno())

    # ------------------------------------------------------------------------------------------------ from the worker

    def _answered(self, since: float, future: Any) -> None:
        now = time.monotonic()
        try:
            reply = Reply.read(future.result())
        except BaseException as error:
            self.lost(error)
            return
        with self._lock:
            self._under_way -= 1
            if reply.order >= 0:
                self.latency += (max(now - since - reply.took, 0.0) - self.latency) / 4
                self._early[reply.order] = reply
            rests = self._deliver()
            if self._paused:
                self._paused = False
                self._io.resume(self._far.fileno())
            if not self._under_way and not self._over and not rests and self._has_work():
                self._exchange(b"", [])
        if not self._watched:
            self._watched = True
            self._io.watch(self)

    def _deliver(self) -> bool:
        """All that has come in its order; whether the worker seems to rest."""
        rests = False
        while (reply := self._early.pop(self._next, None)) is not None:
            self._next += 1
            self._begun, rests = reply.begun, reply.rests
            self.at_rest = rests
            segments = [MemorySegment.of(memoryview(segment)) for segment in reply.segments]
            data = reply.data
            for first in range(0, len(segments), _DESCRIPTORS_A_MESSAGE):  # ahead of the frames that use them
                self._outbox.send(data[:1], segments[first : first + _DESCRIPTORS_A_MESSAGE])
                data = data[1:]
            if data:
                self._outbox.send(data)
            if reply.over and not self._over:
                self._over = True
                self._io.call(self._drained)
            if reply.news:
                end = News(*pickle.loads(reply.news)).end
                if end is not None:
                    self._end(end)
        return rests

    def _drained(self) -> None:
        """In the io loop: nothing is in line; that was all, if the worker's channel is over."""
        if self._over and not self._outbox.line:
            with contextlib.suppress(OSError):
                self._far.shutdown(socket.SHUT_WR)

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
            self._io.call(self._drained)
            self._end(End(f"was lost with its actor ({_in_short(error)})", None, None, False, ""))

    def _end(self, end: End) -> None:
        if self.gone.is_set():
            return
        self._how = WorkerExit(end.words, end.code, end.signal)
        self.deaf, self.tail = end.deaf, end.tail
        self.gone.set()
        self._executor.process_ended()

    def kill(self) -> None:
        if self.gone.is_set():
            return
        self.actor.kill.remote(self.number)
        self._supervisor.later(_KILLING, self._end_actor)

    def _end_actor(self) -> None:
        if not self.gone.is_set():
            with contextlib.suppress(RayError):
                ray.kill(self.actor)

    def how_it_ended(self) -> WorkerExit:
        return self._how

    @property
    def leaves_actor(self) -> bool:
        """Whether its worker has ended and the actor can have another: nothing of this one is under way to it."""
        return self.gone.is_set() and not self._lost and not self._under_way

    def close(self) -> None:
        for sock in (self._far, self._far_control):
            self._io.forget(sock.fileno())
        for sock in (self.data, self.control, self._far, self._far_control):
            sock.close()


def _in_short(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
