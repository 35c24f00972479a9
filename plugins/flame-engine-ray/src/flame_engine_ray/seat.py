"""One worker on a node, and the way to it."""

from __future__ import annotations

import array
import fcntl
import json
import os
import select
import socket
import sys
import termios
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from flame_engine_ray.messages import NOTHING, End, Reply
from flame_engine_ray.segments import NodeSegments
from flame_host.api import Application
from flame_host.transport import HEADER, START, Launcher, Loop, MemorySegment, Share, decode, encode

_READ = 1 << 20
_ANCILLARY = socket.CMSG_SPACE(253 * array.array("i").itemsize)
_DESCRIPTORS_A_MESSAGE = 200


class Seat:
    """See `flame_host.transport.Seat`: it stands for an executor that is elsewhere, and for its session.

    Threads: `exchange` is called from two, `control` from one; the supervisor's loop sees the end.
    """

    share: Share | None = None

    def __init__(
        self,
        launcher: Launcher,
        supervisor: Loop,
        segments: NodeSegments,
        application: Application,
        session_id: str,
        number: int,
        ended: Callable[[Reply, End], None],
    ) -> None:
        self.application = application
        self.session_id = session_id
        self.number = number
        self._launcher = launcher
        self._supervisor = supervisor
        self._segments = segments
        self._ended = ended
        # sending
        self._turn = threading.Condition()
        self._expected = 0
        self._first: bytearray | None = bytearray()
        self._first_segments: list[MemorySegment] = []
        # answers
        self._reading = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._buffer = bytearray(_READ)
        self._waits = False
        self._replies = 0
        self._closed = False
        self._ending = False
        self._process = launcher.spawn(self, self)
        self._order = launcher.start_order(application)
        self._poll = select.poll()
        self._poll.register(self._process.data, select.POLLIN)
        self._poll.register(self._wake, select.POLLIN)

    def __del__(self) -> None:
        os.close(self._wake)

    # ------------------------------------------------------------------------------------------------ calls

    def exchange(self, number: int, data: bytes | memoryview, segments: Sequence[Any]) -> Any:
        """Hand frames to the worker, in the order in which the exchanges are numbered, and wait for what it has to say.

        Only the newest waits; an older one returns with nothing as soon as the next has come.
        """
        begun = time.monotonic()
        with self._turn:
            while self._expected != number:
                self._turn.wait()
            if data:
                self._send(data, [self._segments.taken(*segment) for segment in segments])
            self._expected += 1
            self._turn.notify_all()
            if self._waits:  # set before the count is looked at
                os.eventfd_write(self._wake, 1)
        return self._answers(number, begun)

    def control(self, data: bytes) -> None:
        try:
            self._process.control.sendall(data)
        except OSError:  # it is gone, which `watch` says
            pass

    def kill(self) -> None:
        self._process.kill()

    def _send(self, data: bytes | memoryview, segments: list[MemorySegment]) -> None:
        if self._first is not None:
            self._first += data
            self._first_segments += segments
            start = self._whole_start(self._first)
            if start is None:
                return
            data, segments = start
            self._first, self._first_segments = None, []
        sock = self._process.data
        try:
            view = memoryview(data)
            for first in range(0, len(segments), _DESCRIPTORS_A_MESSAGE):  # ahead of the frames that use them
                rights = array.array("i", [segment.fd for segment in segments[first : first + _DESCRIPTORS_A_MESSAGE]])
                sock.sendmsg([view[:1]], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
                view = view[1:]
            sock.sendall(view)
        except OSError:
            pass

    def _whole_start(self, data: bytearray) -> tuple[bytes, list[MemorySegment]] | None:
        """START, with what only this node knows, once all of it is here; it is the first frame, after those of its descriptors."""
        offset = 0
        while len(data) - offset >= HEADER.size:
            kind, flags, extra, number, length = HEADER.unpack_from(data, offset)
            stop = offset + HEADER.size + length
            if kind != START:
                offset = stop
                continue
            if stop > len(data):
                return None
            body = bytes(data[offset + HEADER.size : stop])
            content, _, references = decode((kind, flags, extra, number, body, tuple(self._first_segments)))
            given = json.loads(content if isinstance(content, bytes) else bytes(content.view()))
            order = {**self._order, **given, "variables": {**self._order["variables"], **given["variables"]}}
            frame, again = encode(START, number, json.dumps(order).encode(), (), references)
            return frame + bytes(data[stop:]), list(again)
        return None

    # ------------------------------------------------------------------------------------------------ answers

    def _answers(self, number: int, begun: float) -> Any:
        with self._reading:
            self._waits = True
            while not self._closed and not self._ending and number == self._expected - 1:
                ready = {fd for fd, _ in self._poll.poll()}
                if self._wake in ready:
                    os.eventfd_read(self._wake)
                if self._process.data.fileno() in ready:
                    self._waits = False
                    return self._reply(*self._received(), begun).written()
            self._waits = False
        return NOTHING

    def _received(self) -> tuple[bytes, list[MemorySegment]]:
        """What there is, without waiting."""
        pieces: list[bytes] = []
        segments: list[MemorySegment] = []
        size = 0
        while size < _READ:
            try:
                count, ancillary, _, _ = self._process.data.recvmsg_into([self._buffer], _ANCILLARY, socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
            except OSError:
                count, ancillary = 0, []
            for level, kind, content in ancillary:
                if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                    descriptors = array.array("i")
                    descriptors.frombytes(content[: len(content) - len(content) % descriptors.itemsize])
                    segments += map(MemorySegment.adopted, descriptors)
            if not count:
                self._closed = True
                break
            pieces.append(bytes(memoryview(self._buffer)[:count]))
            size += count
        return b"".join(pieces), segments

    def _reply(self, data: bytes, segments: list[MemorySegment], begun: float) -> Reply:
        order = self._replies
        self._replies += 1
        rests = self._process.at_rest and not _unread(self._process.data)
        told = self._segments.announced(segments)
        return Reply(order, time.monotonic() - begun, self._process.begun, rests, self._closed, data, told)

    # ------------------------------------------------------------------------------------------------ end

    def process_ended(self) -> None:
        """In the supervisor's thread."""
        self._ending = True
        os.eventfd_write(self._wake, 1)
        self._supervisor.call(self._finish)

    def _finish(self) -> None:
        process = self._process
        with self._reading:
            data, segments = b"", list[Any]()
            while not self._closed:
                more, and_these = self._received()
                if not more and not self._closed:
                    break
                data, segments = data + more, segments + and_these
            self._closed = True
            reply = self._reply(data, segments, time.monotonic())
            how, deaf = process.how_it_ended(), process.deaf
        tail = self._launcher.release(self)
        self._ended(reply, End(how.words, how.code, how.signal, deaf, tail))


def _unread(sock: socket.socket) -> int:
    """Bytes that the worker has not taken yet."""
    return int.from_bytes(fcntl.ioctl(sock, termios.TIOCOUTQ, b"\0\0\0\0"), sys.byteorder)
