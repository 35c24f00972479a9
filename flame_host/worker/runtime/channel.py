"""Frames on a socket pair, and large buffers beside them. The same file serves both sides.

A frame is a 12-byte header and a body. Many frames travel in one write and one read; file descriptors of large buffers travel
ahead of the frame that uses them, in order. Runs in the application's interpreter too: standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct
import time
from collections import deque

from .memory import MemorySegment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from typing import Any, Protocol, Union

    Part = Union[bytes, MemorySegment]
    """What stands in the body itself, or beside it."""
    Reference = tuple[str, Part, Sequence[Part]]
    """Format, data, buffers."""
    Frame = tuple[int, int, int, int, bytes, tuple[MemorySegment, ...]]
    """kind, flags, extra, number, body, segments."""

    class Readable(Protocol):
        """As much of a socket as a `Receiver` needs."""

        @property
        def recvmsg_into(self) -> Callable[..., Any]: ...


HEADER = struct.Struct("<BBHII")
"""kind, flags, extra, number of the task, length of the body. For calls ``extra`` is the length of the method's name."""
HEADER_SIZE = HEADER.size

CALL, RESULT, ERROR, ITEM, RETURNED, START, READY, DESCRIPTORS, STATE, OPEN_STREAM = range(1, 11)
"""Kinds on the data socket. OPEN_STREAM: the task is a generator, ITEMs may follow, and RESULT is what it returns. RETURNED: the
numbers of calls that have not begun and are handed back."""
STOP, RECALL, CANCEL, CREDIT, LOG = range(16, 21)
"""Kinds on the control socket. CREDIT: the consumer of a stream has taken so many of its items (``extra`` and the body) in all."""

WITH_PARTS = 1
"""Flag: the body starts with a table of parts (buffers, references) instead of being all data."""

SPIN = 2
"""Flag of a call: it comes from the only thread that makes any, so the next one may follow at once."""

INLINE_LIMIT = 1 << 20
"""Up to this many bytes a buffer goes through the socket, which is faster for it than shared memory."""
READ_SIZE = 1 << 18
WAIT_AWAKE = 0.0001 if len(os.sched_getaffinity(0)) > 1 else 0.0
"""Seconds that a side which expects an answer at once waits awake for it. Never on a single core: there it is the other's time."""
QUICK = 4 * WAIT_AWAKE
"""Who was kept waiting no longer than this, waits awake the next time."""
_AT_ONCE = 16 << 20  # bytes reserved for a frame that has been announced only
_DESCRIPTORS_A_MESSAGE = 200  # the kernel allows 253
_ANCILLARY = socket.CMSG_SPACE(_DESCRIPTORS_A_MESSAGE * array.array("i").itemsize)
_LENGTH = struct.Struct("<I")
_NUMBER = struct.Struct("<Q")
_BODY_LIMIT = 0xFFFFFFFF


class ChannelClosed(Exception):
    """The other side is gone."""


def encode(
    kind: int,
    number: int,
    data: Any,
    buffers: Iterable[Any] = (),
    references: Iterable[tuple[str, Any, Iterable[Any]]] = (),
    method: bytes = b"",
) -> tuple[bytes, tuple[MemorySegment, ...]]:
    """A frame as bytes, and the segments that have to travel with it.

    Args:
        references: ``(format, data, buffers)`` of each.
    """
    if not buffers and not references and len(data) <= INLINE_LIMIT:
        return HEADER.pack(kind, 0, len(method), number, len(method) + len(data)) + method + data, ()
    pieces: list[Any] = []
    segments: list[MemorySegment] = []
    table = {
        "data": _place([data], pieces, segments)[0],
        "buffers": _place(buffers, pieces, segments),
        "references": [[form, *_place([body], pieces, segments), _place(parts, pieces, segments)] for form, body, parts in references],
    }
    head = json.dumps(table, separators=(",", ":")).encode()
    body = b"".join([method, _LENGTH.pack(len(head)), head, *pieces])
    if len(body) > _BODY_LIMIT:
        raise ValueError("a message of %d bytes is over the limit of 4 GiB" % len(body))
    return HEADER.pack(kind, WITH_PARTS, len(method), number, len(body)) + body, tuple(segments)


def returned(numbers: Sequence[int]) -> bytes:
    """The frame that hands calls back."""
    body = struct.pack("<%dI" % len(numbers), *numbers)
    return HEADER.pack(RETURNED, 0, 0, 0, len(body)) + body


def numbers_of(frame: Frame) -> frozenset[int]:
    """The calls that a RETURNED frame hands back."""
    return frozenset(struct.unpack("<%dI" % (len(frame[4]) // 4), frame[4]))


def credit(number: int, taken: int) -> bytes:
    """The frame that tells how many items of a stream have been taken in all. What it says holds for good, so it may come twice."""
    return HEADER.pack(CREDIT, 0, 0, number, _NUMBER.size) + _NUMBER.pack(taken)


def taken_of(frame: Frame) -> int:
    return int(_NUMBER.unpack(frame[4])[0])


def _place(buffers: Iterable[Any], pieces: list[Any], segments: list[MemorySegment]) -> list[int]:
    """Put small buffers into the body and large ones into segments; returns its size, negative when it went into a segment."""
    places = []
    for buffer in buffers:
        if isinstance(buffer, (bytes, bytearray, memoryview)):
            size = buffer.nbytes if isinstance(buffer, memoryview) else len(buffer)
            if size <= INLINE_LIMIT:
                pieces.append(buffer)
                places.append(size)
                continue
            buffer = MemorySegment.of(buffer)
        segments.append(buffer)
        places.append(-buffer.size)
    return places


def decode(frame: Frame) -> tuple[Part, Sequence[Part], Sequence[Reference]]:
    """Take a frame apart: data, buffers, references; references as ``(format, data, buffers)``. Parts may be segments."""
    _, flags, extra, _, body, segments = frame
    if not flags & WITH_PARTS:
        return body[extra:], (), ()
    coming = iter(segments)

    def take(size: int) -> MemorySegment:
        return next(coming).cut(size)

    (length,) = _LENGTH.unpack_from(body, extra)
    offset = extra + _LENGTH.size + length
    table = json.loads(body[offset - length : offset])
    (data,), offset = _collect([table["data"]], body, offset, take)
    buffers, offset = _collect(table["buffers"], body, offset, take)
    references = []
    for form, place, places in table["references"]:
        (content,), offset = _collect([place], body, offset, take)
        parts, offset = _collect(places, body, offset, take)
        references.append((form, content, parts))
    return data, buffers, references


def view_of(part: Part) -> Any:
    """The bytes of a decoded part: a segment is mapped."""
    return part.view() if isinstance(part, MemorySegment) else part


def writable_view_of(part: Part) -> memoryview:
    """The same for who owns it: writing changes this process's own pages only."""
    return part.private_view() if isinstance(part, MemorySegment) else memoryview(bytearray(part))


def _collect(places: Sequence[int], body: bytes, offset: int, take: Callable[[int], MemorySegment]) -> tuple[list[Part], int]:
    parts: list[Part] = []
    for place in places:
        if place < 0:
            parts.append(take(-place))
        else:
            parts.append(body[offset : offset + place])
            offset += place
    return parts, offset


class Receiver:
    """Reads frames. One thread at a time."""

    def __init__(self, sock: Readable) -> None:
        self._sock = sock
        self._buffer = bytearray(READ_SIZE)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0
        self._descriptors: deque[Any] = deque()
        self._segments: tuple[MemorySegment, ...] = ()
        self._received: deque[Any] = deque()
        self._recvmsg_into = sock.recvmsg_into

    @property
    def torn(self) -> bool:
        """A signal's exception has come between taking bytes off the socket and making frames of them: it cannot be read any more."""
        return bool(self._received)

    def spin_into(self, frames: list[Frame] | deque[Frame], enough: float = WAIT_AWAKE) -> bool:
        """Like `receive_into`, asking again and again for so many seconds; whether anything came."""
        until = time.monotonic() + enough
        while time.monotonic() < until:
            try:
                self.receive_into(frames, socket.MSG_DONTWAIT)
                return True
            except BlockingIOError:
                continue
        return False

    def receive(self, flags: int = 0) -> list[Frame]:
        """Wait for data and return all whole frames in it, as ``(kind, flags, extra, number, body, segments)``; perhaps none.

        Bodies are copies. Raises `ChannelClosed` at the end, BlockingIOError with ``MSG_DONTWAIT`` and nothing there.
        """
        frames: list[Frame] = []
        self.receive_into(frames, flags)
        return frames

    def receive_into(self, into: list[Frame] | deque[Frame], flags: int = 0) -> None:
        """The same, appended to a list or deque; by then they are there, or `torn` is true, should a signal interrupt this."""
        view, received = self._view, self._received
        try:
            # Received and remembered in one go: between two lines a signal's exception may come.
            received.extend(map(self._recvmsg_into, ([view[self._end :]],), (_ANCILLARY,), (flags,)))
        except (TimeoutError, BlockingIOError):
            raise
        except OSError as error:
            raise ChannelClosed(str(error)) from error
        count, ancillary, _, _ = received[0]
        if ancillary:
            self._keep(ancillary)
        if not count:
            received.clear()
            raise ChannelClosed("the other side closed the channel")
        start, end = self._start, self._end + count
        frames: list[Frame] = []
        append, unpack, size = frames.append, HEADER.unpack_from, HEADER_SIZE
        needed = size
        while end - start >= size:
            kind, frame_flags, extra, number, length = unpack(view, start)
            stop = start + size + length
            if stop > end:
                needed = size + length
                break
            if kind == DESCRIPTORS:
                self._segments = (*self._segments, *[self._adopt(self._descriptors.popleft()) for _ in range(extra)])
            else:
                append((kind, frame_flags, extra, number, bytes(view[start + size : stop]), self._segments))
                self._segments = ()
            start = stop
        self._settle(start, end, needed)
        into.extend(frames)
        received.clear()

    def spin(self, enough: float = WAIT_AWAKE) -> list[Frame] | None:
        """Ask again and again for so many seconds, then give up with None: to be woken takes longer than a short call.

        A process that waits for an answer to come in a few microseconds keeps its core awake, its caches warm and its place. Only for
        those who have seen that the other side is quick.
        """
        until = time.monotonic() + enough
        while time.monotonic() < until:
            try:
                return self.receive(socket.MSG_DONTWAIT)
            except BlockingIOError:
                continue
        return None

    def _adopt(self, descriptor: Any) -> MemorySegment:
        return MemorySegment.adopted(descriptor)

    def _settle(self, start: int, end: int, needed: int) -> None:
        """Keep the incomplete rest at the front of a buffer that has room for it."""
        rest = end - start
        if not rest:
            self._start = self._end = 0
            if len(self._buffer) > 16 * READ_SIZE:
                self._grow(b"", READ_SIZE)
        elif start + needed > len(self._buffer) and (start or needed <= _AT_ONCE or end == len(self._buffer)):
            # Not more than what has come warrants: the length is only what the other side says.
            self._grow(bytes(self._view[start:end]), max(READ_SIZE, min(needed, max(_AT_ONCE, 2 * rest))))
        else:
            self._start, self._end = start, end

    def _grow(self, rest: bytes, capacity: int) -> None:
        if capacity > len(self._buffer) or not rest:
            self._buffer = bytearray(capacity)
            self._view = memoryview(self._buffer)
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)

    def _keep(self, ancillary: Iterable[tuple[int, int, bytes]]) -> None:
        for level, kind, data in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors: array.array[int] = array.array("i")
                descriptors.frombytes(data[: len(data) - len(data) % descriptors.itemsize])
                for fd in descriptors:
                    os.set_inheritable(fd, False)
                self._descriptors.extend(descriptors)

    def close(self) -> None:
        while self._descriptors:
            os.close(self._descriptors.popleft())


def descriptor_messages(segments: Sequence[Any]) -> Iterator[tuple[bytes, Sequence[Any]]]:
    """The messages that carry segments: pairs of a frame and those whose descriptors are sent with it."""
    for first in range(0, len(segments), _DESCRIPTORS_A_MESSAGE):
        some = segments[first : first + _DESCRIPTORS_A_MESSAGE]
        yield HEADER.pack(DESCRIPTORS, 0, len(some), 0, 0), some


def send_descriptors(sock: socket.socket, segments: Sequence[MemorySegment]) -> None:
    """Send segments on a blocking socket, ahead of the frame that uses them."""
    for frame, some in descriptor_messages(segments):
        descriptors = array.array("i", [segment.fd for segment in some])
        sock.sendmsg([frame], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)])
