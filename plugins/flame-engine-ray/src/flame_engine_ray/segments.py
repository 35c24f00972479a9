"""Large buffers, on their way through Ray's object store: they travel as references, from node to node, and are fetched when read.

On the node where one was made it is not even that: whoever needs it there maps the memory of its maker, as on one machine.
"""

from __future__ import annotations

import os
import pickle
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError

from flame_host.api import ObjectNotFoundError
from flame_host.transport import MemorySegment

_KNOWN = 4  # segments that a node keeps open, for calls that refer to them again
_MADE = 2  # that are kept for others on the node: more, and their workers would find no memory to write to again


class Place(NamedTuple):
    """Where a segment's memory is open: node, process, descriptor, and the file's own number, by which it is known again."""

    node: str
    pid: int
    fd: int
    inode: int


class RaySegment(MemorySegment):
    """A segment in the object store, as the client holds it.

    Attributes:
        reference: Ray's. place: where its maker has it, perhaps still.
    """

    __slots__ = ("__weakref__", "place", "reference")

    def __init__(self, reference: Any, size: int, place: Place | None = None) -> None:
        super().__init__(-1, size)
        self.reference = reference
        self.place = place
        _alive.add(self)

    @classmethod
    def put(cls, buffer: Any) -> RaySegment:
        view = memoryview(buffer).cast("B")
        return cls(ray.put(pickle.PickleBuffer(view)), len(view))

    def view(self) -> memoryview:
        """Fetch it; on this node nothing is copied."""
        if self._map is None:
            found = opened(self.place, self.size) if self.place is not None else None
            self._map = found.view() if found is not None else _fetched(self.reference)
        return memoryview(self._map)

    def private_view(self) -> memoryview:
        return memoryview(bytearray(self.view()))

    def keep(self) -> None:
        """Fetch it now, for Ray is about to be left."""
        self._map = bytes(self.view())

    def __del__(self) -> None:  # type: ignore[override]  # nothing to close
        """Ray counts the reference."""


_alive: weakref.WeakSet[RaySegment] = weakref.WeakSet()


def keep_all() -> None:
    """What a client still holds stays readable when it leaves the cluster."""
    for segment in list(_alive):
        segment.keep()


def _fetched(reference: Any) -> Any:
    try:
        return ray.get(reference)
    except RayError as error:
        raise ObjectNotFoundError(
            f"a value is not in Ray's object store any more ({type(error).__name__})",
            hint="call what made it again",
        ) from error


def opened(place: Place, size: int) -> MemorySegment | None:
    """The memory itself, where this is its node and its maker still has it."""
    if place.node != ray.get_runtime_context().get_node_id():
        return None
    try:
        fd = os.open(f"/proc/{place.pid}/fd/{place.fd}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    status = os.fstat(fd)
    if status.st_ino != place.inode or status.st_size < size:
        os.close(fd)
        return None
    return MemorySegment(fd, size)


class NodeSegments:
    """Those of one executor on its node. Thread-safe."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id()
        self._lock = threading.Lock()
        self._count = 0
        self._waiting: dict[int, MemorySegment] = {}
        self._known: OrderedDict[bytes, MemorySegment] = OrderedDict()
        self._made: OrderedDict[int, MemorySegment] = OrderedDict()

    def taken(self, reference: Any, size: int, place: tuple[Any, ...] | None) -> MemorySegment:
        """What a worker of this node can map."""
        key = reference.binary()
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
                return self._known[key]
        found = opened(Place(*place), size) if place is not None else None
        if found is None:
            found = MemorySegment.of(memoryview(ray.get(reference)))
        with self._lock:
            self._known[key] = found
            while len(self._known) > _KNOWN:
                self._known.popitem(last=False)
        return found

    def announced(self, segments: Sequence[MemorySegment]) -> list[tuple[int, int, tuple[Any, ...]]]:
        """Number, size and place of each; the client asks for them by number, with `handed_over`."""
        told = []
        for segment in segments:
            with self._lock:
                self._count += 1
                self._waiting[self._count] = segment
                place = Place(self._node, os.getpid(), segment.fd, os.fstat(segment.fd).st_ino)
                told.append((self._count, segment.size, tuple(place)))
        return told

    def handed_over(self, numbers: Sequence[int]) -> Any:
        """Into the object store, where they belong to the client; their memory stays for a while, for those on this node."""
        with self._lock:
            segments = [self._waiting.pop(number) for number in numbers]
            self._made.update(zip(numbers, segments, strict=True))
            while len(self._made) > _MADE:
                self._made.popitem(last=False)
        buffers = tuple(pickle.PickleBuffer(segment.view()) for segment in segments)
        return buffers if len(buffers) != 1 else buffers[0]
