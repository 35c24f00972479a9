"""Shared objects of the local engine: large buffers are moved into shared memory once, when they are put."""

from __future__ import annotations

from dataclasses import replace

from flame_host.api import Buffer, ObjectRef, ObjectStore, Payload, buffer_size
from flame_host.worker.runtime.channel import INLINE_LIMIT
from flame_host.worker.runtime.memory import MemorySegment


class SharedObjects:
    """An `ObjectStore` in front of another."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.get = store.get
        self.delete = store.delete
        self.close = store.close

    @property
    def endpoint(self) -> str:
        return self._store.endpoint

    def put(self, key: str, payload: Payload) -> ObjectRef:
        return self._store.put(key, self._shared(payload))

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        return self._store.update(ref, self._shared(payload), if_version=if_version)

    def _shared(self, payload: Payload) -> Payload:
        return replace(payload, buffers=tuple(self.stable(buffer) for buffer in payload.buffers))

    def stable(self, buffer: Buffer) -> Buffer:
        """A buffer that nobody can change any more: what is put is what will be got."""
        if not isinstance(buffer, (bytearray, memoryview)):
            return buffer
        return MemorySegment.of(buffer) if buffer_size(buffer) > INLINE_LIMIT else bytes(buffer)
