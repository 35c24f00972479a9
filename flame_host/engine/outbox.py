"""Sending without ever waiting: what a socket does not take at once is sent on by the io loop."""

from __future__ import annotations

import array
import contextlib
import socket
import threading
from collections import deque
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from flame_host.engine.loop import Loop


class Segment(Protocol):
    @property
    def fd(self) -> int: ...


class Sending(Protocol):
    """Takes what is to be sent, in order, from any thread, and never blocks; `Outbox` does so on a socket.

    Attributes:
        line: what waits. While it is not empty no more should be made.
    """

    @property
    def line(self) -> Collection[Any]: ...
    def send(self, data: bytes, segments: Sequence[Any] = ()) -> None: ...


class Outbox:
    """What is to be sent on one socket, in order, by any thread.

    A sender that waited for its worker to read would wait for ever where the worker waits for somebody to read from it. So nobody
    waits: the rest stands in a line, the io loop sends it as the socket takes it, and says so to ``on_drained``.

    Attributes:
        line: what waits, oldest first. While it is not empty no more should be made; then ``on_drained`` is called.
    """

    def __init__(self, sock: socket.socket, loop: Loop, on_drained: Callable[[], object] = lambda: None) -> None:
        self._sock = sock
        self._loop = loop
        self._on_drained = on_drained
        # Reentrant: a finalizer that the collector runs, or a signal's handler, may send while this thread does.
        self._lock = threading.RLock()
        self.line: deque[tuple[memoryview, Sequence[Segment]]] = deque()
        self._broken = False

    def send(self, data: bytes, segments: Sequence[Segment] = ()) -> None:
        """Never blocks, and raises nothing: that the other side is gone, its reader will say."""
        with self._lock:
            if self._broken:
                return
            try:
                if not self.line and not segments:
                    try:
                        sent = self._sock.send(data, socket.MSG_DONTWAIT)
                    except BlockingIOError:
                        sent = 0
                    except OSError:
                        self._broken = True
                        return
                    if sent == len(data):
                        return
                    self.line.append((memoryview(data)[sent:], ()))
                    self._loop.write(self._sock.fileno(), self._go_on)
                    return
                self.line.append((memoryview(data), segments))
                if len(self.line) == 1 and not self._send_some():
                    self._loop.write(self._sock.fileno(), self._go_on)
            except BaseException:
                # Interrupted (Ctrl-C) where it is not known any more what has been sent: nobody may read on.
                self._break()
                raise

    def _go_on(self) -> None:
        """In the io loop. Invariant: while something is in line, this is going to be called."""
        with self._lock:
            if not self._send_some():
                self._loop.write(self._sock.fileno(), self._go_on)
                return
        self._on_drained()

    def _break(self) -> None:
        self._broken = True
        self.line.clear()
        with contextlib.suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _send_some(self) -> bool:
        """As much as the socket takes; whether that was all."""
        line = self.line
        while line:
            data, segments = line[0]
            try:
                if segments:
                    rights = array.array("i", [segment.fd for segment in segments])
                    sent = self._sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)], socket.MSG_DONTWAIT)
                else:
                    sent = self._sock.send(data, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return False
            except OSError:
                self._broken = True
                line.clear()
                break
            if sent == len(data):
                line.popleft()
            else:
                line[0] = (data[sent:], ())
        return True
