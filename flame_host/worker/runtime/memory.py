"""Large buffers in shared memory, and how it is used again. The same file serves both sides.

Fresh pages cost several times what the copy into them does, so a process keeps the memory of its last segments for a moment and
writes the next ones there. That nobody else holds a segment any more is known from the kernel, however they let go of it, or died:
the others are given a read-only description of the file, and a write lease is granted only when no such description exists.

Runs in the application's interpreter too: standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
import time
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from .channel import Part, Reference

_KEPT_FOR = 5.0  # seconds that memory nobody asks for is kept
_KEPT_SEGMENTS = 4
_KEPT_BYTES = os.sysconf("SC_PHYS_PAGES") * mmap.PAGESIZE // 4
_KEPT_ANYWAY = 16 << 20
_SLACK = 4  # a segment is used again for no less than this part of its size
_ADD_SEALS = getattr(fcntl, "F_ADD_SEALS", 1033)
_SEALS = 0x0001 | 0x0002 | 0x0004  # seal, shrink, grow
_POPULATE = getattr(mmap, "MAP_POPULATE", 0x8000)


class MemorySegment:
    """An immutable buffer in anonymous shared memory.

    It has no name: when the last process that holds it ends, however it ends, the kernel frees it.
    """

    __slots__ = ("_map", "fd", "size")

    def __init__(self, fd: int, size: int) -> None:
        self.fd = fd
        self.size = size
        self._map: Any = None  # what is mapped, or read otherwise

    @classmethod
    def of(cls, buffer: Any, kept: Kept | None = None) -> MemorySegment:
        """Copy a buffer in, into memory of ``kept`` if that has some."""
        view = memoryview(buffer).cast("B")
        return cls((_kept if kept is None else kept).written(view), len(view))

    @classmethod
    def adopted(cls, fd: int) -> MemorySegment:
        """What another process has sent; its size is that of the memory until `cut`."""
        return cls(fd, os.fstat(fd).st_size)

    def cut(self, size: int) -> MemorySegment:
        """What is meant of it. Its size is sealed: one that is too short would kill its reader with SIGBUS."""
        if size > self.size:
            raise ValueError("a segment of %d bytes was announced, it has %d" % (size, self.size))
        self.size = size
        return self

    def view(self) -> memoryview:
        """Map read-only; the mapping goes when the last view does."""
        if self._map is None:
            self._map = mmap.mmap(self.fd, self.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) if self.size else b""
        return memoryview(self._map)

    def private_view(self) -> memoryview:
        """Map so that it can be written to; what is written is seen here only."""
        return memoryview(mmap.mmap(self.fd, self.size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ | mmap.PROT_WRITE))

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        try:
            close(self.fd)
        except (OSError, AttributeError):
            pass


class _Memory:
    """One file of shared memory that this process, and nobody else, may write to. ``idle_since``: when it was last written."""

    def __init__(self, view: memoryview) -> None:
        anonymous = os.memfd_create("flame", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        try:
            self.capacity = len(view)
            # `write` beats copying into a fresh mapping: no page faults.
            offset = 0
            while offset < len(view):
                offset += os.write(anonymous, view[offset : offset + (1 << 30)])
            # Sealed, so that a reader can rely on its size.
            fcntl.fcntl(anonymous, _ADD_SEALS, _SEALS)
            # Opened anew: a lease counts descriptions as they were opened, and this first one was not.
            self.fd = os.open("/proc/self/fd/%d" % anonymous, os.O_RDWR | os.O_CLOEXEC)
        finally:
            os.close(anonymous)
        self._map: mmap.mmap | None = None
        self.idle_since = time.monotonic()

    def read_only(self) -> int:
        return os.open("/proc/self/fd/%d" % self.fd, os.O_RDONLY | os.O_CLOEXEC)

    def is_free(self) -> bool:
        """Whether no description of it is open or mapped anywhere but ours."""
        try:
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_WRLCK)
            fcntl.fcntl(self.fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
        except OSError:
            return False
        return True

    def write(self, view: memoryview) -> None:
        """Again. The mapping is made once and kept: with its pages there, a copy costs a third of a `write`."""
        if self._map is None:
            self._map = mmap.mmap(self.fd, self.capacity, flags=mmap.MAP_SHARED | _POPULATE)
        self._map[: len(view)] = view
        self.idle_since = time.monotonic()

    def close(self) -> None:
        if self._map is not None:
            self._map.close()
        os.close(self.fd)


class _Timer:
    """Calls back once, some seconds after it was set, unless it is set already; none in a forked child."""

    def __init__(self, seconds: float, callback: Callable[[], None]) -> None:
        self._seconds = seconds
        self._callback = callback
        self._pending: tuple[int, threading.Timer] | None = None

    def set(self) -> None:
        if self._pending is None or self._pending[0] != os.getpid():
            timer = threading.Timer(self._seconds, self._ring)
            timer.daemon = True
            self._pending = (os.getpid(), timer)
            timer.start()

    def _ring(self) -> None:
        self._pending = None
        self._callback()


class Mapped:
    """The segments that the last call referred to stay mapped for a moment: read again, their pages are in place."""

    def __init__(self, seconds: float = _KEPT_FOR) -> None:
        self._segments: dict[tuple[int, int, int], MemorySegment] = {}
        self._used = 0.0
        self._seconds = seconds
        self._timer = _Timer(seconds, self._expire)

    def again(self, references: Sequence[Reference]) -> Sequence[Reference]:
        """The references of a call, with the segments that have been mapped before in place of the same ones that came anew."""
        known, self._segments = self._segments, {}
        self._used = time.monotonic()
        self._timer.set()
        return [(form, self._known(content, known), [self._known(part, known) for part in parts]) for form, content, parts in references]

    def _known(self, part: Part, known: dict[tuple[int, int, int], MemorySegment]) -> Part:
        if not isinstance(part, MemorySegment):
            return part
        status = os.fstat(part.fd)
        key = (status.st_dev, status.st_ino, part.size)
        return self._segments.setdefault(key, known.get(key, part))

    def _expire(self) -> None:
        if time.monotonic() - self._used >= self._seconds:
            self._segments = {}
        else:
            self._timer.set()


def _available() -> int:
    """Bytes that the machine can still give, what is kept anywhere not counted."""
    with open("/proc/meminfo") as lines:
        for line in lines:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0


class Kept:
    """What this process has written lately and may write again. A timer lets go of it soon after the last use."""

    def __init__(self, seconds: float = _KEPT_FOR, limit: int = _KEPT_BYTES, available: Callable[[], int] = _available) -> None:
        self._memories: deque[_Memory] = deque()
        self._seconds = seconds
        self._limit = limit
        self._available = available
        self._timer = _Timer(seconds, self._expire)
        self._forget()
        os.register_at_fork(after_in_child=self._forget)

    def _forget(self) -> None:
        """In a forked child: the memory is its parent's to write."""
        self._lock = threading.Lock()
        self._drop(len(self._memories))

    def written(self, view: memoryview) -> int:
        """A read-only descriptor of memory that holds these bytes."""
        with self._lock:
            memory = self._free(len(view))
            if memory is not None:
                memory.write(view)
            else:
                memory = self._fresh(view)
            fd = memory.read_only()
            self._keep(memory)
        return fd

    def _free(self, size: int) -> _Memory | None:
        fitting = [memory for memory in self._memories if size <= memory.capacity <= size * _SLACK and memory.is_free()]
        best = min(fitting, key=lambda memory: memory.capacity, default=None)
        if best is not None:
            self._memories.remove(best)
        return best

    def _fresh(self, view: memoryview) -> _Memory:
        try:
            return _Memory(view)
        except OSError:  # no room: perhaps there is with what we keep
            self._drop(len(self._memories))
            return _Memory(view)

    def _keep(self, memory: _Memory) -> None:
        self._memories.append(memory)
        while len(self._memories) > _KEPT_SEGMENTS or self._is_too_much(sum(one.capacity for one in self._memories)):
            self._drop(1)
        if self._memories:
            self._timer.set()

    def _is_too_much(self, kept: int) -> bool:
        """Other processes keep memory too, so what matters is what all of them have left."""
        return kept > self._limit or (kept > _KEPT_ANYWAY and kept > self._available() // 4)

    def __len__(self) -> int:
        return len(self._memories)

    def clear(self) -> None:
        with self._lock:
            self._drop(len(self._memories))

    def _drop(self, count: int) -> None:
        for _ in range(count):
            self._memories.popleft().close()

    def _expire(self) -> None:
        with self._lock:
            due = time.monotonic() - self._seconds
            while self._memories and self._memories[0].idle_since <= due:
                self._drop(1)
            if self._memories:
                self._timer.set()


_kept = Kept()
