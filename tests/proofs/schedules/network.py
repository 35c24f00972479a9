"""Sockets, pipes and pollers of the machine: small buffers, reads and writes of any size, ends that the other side sees."""

from __future__ import annotations

import os
import random
import select
import socket
from typing import Any

from simulation import Machine

CAPACITY = 1500
"""Bytes on their way in one direction: less than many messages have, so that sending often has to wait."""
_FIRST = 1_000_000
_ends: dict[int, End] = {}
_real = {name: getattr(os, name) for name in ("read", "write", "close", "set_blocking", "get_inheritable", "pipe")}
chance = random.Random(0)


class End:
    """One end of a connection; what has come and was not read. ``users``: handles to it."""

    def __init__(self) -> None:
        self.number = _FIRST + len(_ends)
        while self.number in _ends:
            self.number += 1
        _ends[self.number] = self
        self.incoming = bytearray()
        self.peer: End | None = None
        self.deaf = self.mute = False
        self.blocking = True
        self.users = 1

    def readable(self) -> bool:
        return bool(self.incoming) or self.at_end()

    def at_end(self) -> bool:
        return self.deaf or self.peer is None or self.peer.mute

    def writable(self) -> bool:
        return self.broken() or len(self.peer.incoming) < CAPACITY  # type: ignore[union-attr]

    def broken(self) -> bool:
        return self.mute or self.peer is None or self.peer.deaf or self.peer.users == 0

    def hung_up(self) -> bool:
        return self.peer is None or self.peer.users == 0

    def put(self, data: Any) -> int:
        if self.broken():
            raise BrokenPipeError("nobody reads")
        assert self.peer is not None
        room = CAPACITY - len(self.peer.incoming)
        if room <= 0:
            raise BlockingIOError("full")
        size = min(len(data), room)
        self.peer.incoming += data[:size]
        return size

    def take(self, most: int) -> bytes:
        size = min(most, len(self.incoming))
        if size > 1 and chance.random() < 0.3:
            size = chance.randrange(1, size)
        data = bytes(self.incoming[:size])
        del self.incoming[:size]
        return data

    def close(self) -> None:
        self.users -= 1
        if self.users == 0:
            self.deaf = self.mute = True
            self.incoming.clear()
            _ends.pop(self.number, None)


def _connected() -> tuple[End, End]:
    one, other = End(), End()
    one.peer, other.peer = other, one
    return one, other


class SimSocket:
    """A handle to an end, with what the code under test uses of a socket."""

    def __init__(self, fileno: int) -> None:
        self.end = _ends[fileno]
        self._open = True

    def fileno(self) -> int:
        return self.end.number if self._open else -1

    def setsockopt(self, *_: object) -> None: ...

    def _checked(self) -> End:
        Machine.current.step()
        if not self._open:
            raise OSError(9, "closed")
        return self.end

    def send(self, data: Any, flags: int = 0) -> int:
        end = self._checked()
        if not flags & socket.MSG_DONTWAIT:
            Machine.current.wait(end.writable)
        return end.put(data)

    def sendall(self, data: Any) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self.send(rest) :]

    def recvmsg_into(self, buffers: Any, _: int = 0, flags: int = 0) -> tuple[int, list[Any], int, None]:
        end = self._checked()
        if not end.readable():
            if flags & socket.MSG_DONTWAIT:
                raise BlockingIOError("empty")
            Machine.current.wait(end.readable)
        data = end.take(len(buffers[0]))
        buffers[0][: len(data)] = data
        return len(data), [], 0, None

    def shutdown(self, how: int) -> None:
        end = self._checked()
        if how in (socket.SHUT_RD, socket.SHUT_RDWR):
            end.deaf = True
        if how in (socket.SHUT_WR, socket.SHUT_RDWR):
            end.mute = True

    def close(self) -> None:
        if self._open:
            self._open = False
            self.end.close()

    def __enter__(self) -> SimSocket:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SimEpoll:
    def __init__(self) -> None:
        self._end = End()
        self._end.readable = lambda: bool(self._ready())  # type: ignore[method-assign]
        self._masks: dict[int, int] = {}

    def fileno(self) -> int:
        return self._end.number

    def register(self, fd: int, mask: int) -> None:
        Machine.current.step()
        if fd in self._masks:
            raise FileExistsError(fd)
        if fd not in _ends:
            raise OSError(9, "closed")
        self._masks[fd] = mask

    def modify(self, fd: int, mask: int) -> None:
        Machine.current.step()
        if fd not in self._masks:
            raise FileNotFoundError(fd)
        self._masks[fd] = mask

    def unregister(self, fd: int) -> None:
        Machine.current.step()
        if self._masks.pop(fd, None) is None:
            raise FileNotFoundError(fd)

    def _ready(self) -> list[tuple[int, int]]:
        found = []
        for fd, mask in list(self._masks.items()):
            end = _ends.get(fd)
            if end is None:  # closing a descriptor takes it out
                del self._masks[fd]
                continue
            event = mask & select.EPOLLIN if end.readable() else 0
            event |= mask & select.EPOLLOUT if end.writable() else 0
            if mask and end.hung_up() and end.peer is not None:
                event |= select.EPOLLHUP
            if event:
                found.append((fd, event))
        return found

    def poll(self, timeout: float | None = None) -> list[tuple[int, int]]:
        if timeout == 0:
            Machine.current.step()
        else:
            Machine.current.wait(lambda: bool(self._ready()), timeout)
        found = self._ready()
        for fd, _ in found:
            if self._masks[fd] & select.EPOLLONESHOT:
                self._masks[fd] = 0
        return found

    def close(self) -> None:
        self._masks.clear()
        self._end.close()


class SimPoll:
    def __init__(self) -> None:
        self._wanted: list[tuple[SimSocket, int]] = []

    def register(self, sock: SimSocket, mask: int) -> None:
        self._wanted.append((sock, mask))

    def poll(self, milliseconds: float | None = None) -> list[tuple[int, int]]:
        def ready() -> list[tuple[int, int]]:
            return [(sock.fileno(), mask) for sock, mask in self._wanted if sock.end.readable()]

        Machine.current.wait(lambda: bool(ready()), None if milliseconds is None else milliseconds / 1000)
        return ready()


def duplicate(fd: int) -> None:
    """As a descriptor that is sent to another process is one there, too."""
    _ends[fd].users += 1


def close_all() -> None:
    _ends.clear()


def _pipe() -> tuple[int, int]:
    reading, writing = _connected()
    return reading.number, writing.number


def _read(fd: int, size: int) -> bytes:
    if fd < _FIRST:
        return _real["read"](fd, size)
    end = _ends[fd]
    Machine.current.step()
    if not end.readable():
        if not end.blocking:
            raise BlockingIOError("empty")
        Machine.current.wait(end.readable)
    return end.take(size)


def _write(fd: int, data: bytes) -> int:
    if fd < _FIRST:
        return _real["write"](fd, data)
    Machine.current.step()
    if fd not in _ends:
        raise OSError(9, "closed")
    return _ends[fd].put(data)


def _close(fd: int) -> None:
    if fd < _FIRST:
        _real["close"](fd)
    elif fd in _ends:
        _ends[fd].close()


def _set_blocking(fd: int, blocking: bool) -> None:
    if fd < _FIRST:
        _real["set_blocking"](fd, blocking)
    else:
        _ends[fd].blocking = blocking


def install() -> None:
    def pair() -> tuple[SimSocket, SimSocket]:
        one, other = _connected()
        return SimSocket(one.number), SimSocket(other.number)

    socket.socketpair = pair  # type: ignore[assignment]
    socket.socket = SimSocket  # type: ignore[assignment, misc]
    select.epoll = SimEpoll  # type: ignore[assignment, misc]
    select.poll = SimPoll  # type: ignore[assignment, misc]
    os.pipe, os.read, os.write, os.close, os.set_blocking = _pipe, _read, _write, _close, _set_blocking
