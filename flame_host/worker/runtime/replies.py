"""The worker's sending end: answers are gathered, frames with large buffers and lines of output go at once.

Both threads send. Two locks, one for each socket, and never one within the other. Standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import errno
import threading
import time
from collections import deque

from .channel import HEADER, LOG, ChannelClosed, encode, send_descriptors

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

    from .interruption import RunningTask
    from .memory import MemorySegment


class Replies:
    """Attributes: waiting: frames not sent yet, oldest first. since: when the first of them came, by the monotonic clock."""

    def __init__(self, data: socket.socket, control: socket.socket, progress: memoryview, task: RunningTask) -> None:
        self._data = data
        self._control = control
        self._progress = progress
        self._task = task
        self.waiting: deque[bytes] = deque()
        self.since = 0.0
        self.renew_locks()

    def renew_locks(self) -> None:
        """Also in a fork: the threads that held the old ones are not there."""
        self._data_lock = threading.Lock()
        self._control_lock = threading.Lock()

    def add(self, kind: int, number: int, data: bytes) -> None:
        """A small answer: goes with the next `flush`."""
        if not self.waiting:
            self.since = time.monotonic()
        self.waiting.append(HEADER.pack(kind, 0, 0, number, len(data)) + data)

    def add_frame(self, frame: bytes) -> None:
        self.waiting.append(frame)

    def flush(self) -> None:
        if self.waiting:
            with self._data_lock:
                self._send_waiting()

    def send_parts(self, kind: int, number: int, data: bytes, buffers: Sequence[object]) -> None:
        self.send_frame(*encode(kind, number, data, buffers))

    def send_frame(self, frame: bytes, segments: Sequence[MemorySegment] = ()) -> None:
        with self._data_lock:
            # What stands in line goes first, and nothing of the control thread's between descriptors and the frame that uses them.
            self._send_waiting()
            self._write(frame, segments)

    def _send_waiting(self) -> None:
        """All that has been gathered in one write. Both threads add to the queue, so it is emptied piece by piece."""
        waiting = self.waiting
        try:
            data = waiting.popleft()
            if waiting:
                pending = [data]
                try:
                    while True:
                        pending.append(waiting.popleft())
                except IndexError:
                    data = b"".join(pending)
        except IndexError:  # the other thread was quicker
            return
        self._write(data)

    def _write(self, data: bytes, segments: Sequence[MemorySegment] = ()) -> None:
        try:
            send_descriptors(self._data, segments)
            self._data.sendall(data)
        except OSError as error:
            if error.errno in (errno.EBADF, errno.ENOTSOCK):
                self._progress[1] = 1  # not the host is gone, but a task has closed our descriptors
            raise ChannelClosed("the host is gone") from None

    def log(self, stream: int, text: bytes) -> None:
        """Output of the user's code; dropped when the host is gone."""
        frame = HEADER.pack(LOG, stream, 0, self._task.number, len(text)) + text
        if self._task.runs_here():
            self._task.undisturbed(self._send_log, frame)
        else:
            self._send_log(frame)

    def _send_log(self, frame: bytes) -> None:
        try:
            with self._control_lock:
                self._control.sendall(frame)
        except OSError:
            pass
