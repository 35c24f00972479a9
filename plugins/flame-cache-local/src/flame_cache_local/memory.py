"""Objects in this process's memory."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable

from flame_host.api import Buffer, ClosedError, ObjectNotFoundError, ObjectRef, Payload, VersionConflictError
from flame_host.api.keys import parts_of


class Space:
    """The objects of one endpoint, by session and key; the newest version only."""

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, tuple[int, Payload]]] = {}
        self.lock = threading.Lock()
        self.names = itertools.count(1)
        self.users = 0


class MemoryStore:
    """One opening of a `Space`.

    Buffers are kept as they are when they cannot change (bytes, segments, read-only views); writable ones are copied, because an
    object must not follow what its owner does to an array afterwards.
    """

    def __init__(self, endpoint: str, space: Space, leave: Callable[[str], None]) -> None:
        self._endpoint = endpoint
        self._space = space
        self._leave = leave
        self._closed = False

    @property
    def endpoint(self) -> str:
        return self._endpoint

    def put(self, key: str, payload: Payload) -> ObjectRef:
        space, payload = self._usable(), _frozen(payload)
        with space.lock:
            objects = space.sessions.get(key)
            if objects is not None:  # a known prefix, hence a checked one
                return self._put_fresh(key, objects, payload)
            if key.count("/") == 1:
                parts_of(key, 2)
                return self._put_fresh(key, space.sessions.setdefault(key, {}), payload)
            parts_of(key, 2, 3)
            objects = space.sessions.setdefault(key.rpartition("/")[0], {})
            version = objects[key][0] + 1 if key in objects else 1
            objects[key] = (version, payload)
        return self._ref(key, version, payload)

    def _put_fresh(self, prefix: str, objects: dict[str, tuple[int, Payload]], payload: Payload) -> ObjectRef:
        key = f"{prefix}/{next(self._space.names):x}"
        while key in objects:
            key = f"{prefix}/{next(self._space.names):x}"
        objects[key] = (1, payload)
        return self._ref(key, 1, payload)

    def get(self, ref: ObjectRef) -> Payload:
        space, key = self._usable(), ref.key
        with space.lock:
            found = space.sessions.get(key.rpartition("/")[0], {}).get(key)
        if found is None or ref.version not in (0, found[0]):
            raise _missing(ref, found[0] if found else 0)
        return found[1]

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        space, payload, key = self._usable(), _frozen(payload), ref.key
        with space.lock:
            objects = space.sessions.get(key.rpartition("/")[0], {})
            if key not in objects:
                raise _missing(ref, 0)
            version = objects[key][0]
            if if_version is not None and if_version != version:
                raise VersionConflictError(f"{key} has version {version}, not {if_version}", hint="get it again and repeat the change")
            objects[key] = (version + 1, payload)
        return self._ref(key, version + 1, payload)

    def delete(self, key: str) -> int:
        space = self._usable()
        parts = parts_of(key, 2, 3)
        with space.lock:
            if len(parts) == 3:
                objects = space.sessions.get(f"{parts[0]}/{parts[1]}", {})
                return 0 if objects.pop(key, None) is None else 1
            if parts[1] != "*":
                return len(space.sessions.pop(key, {}))
            doomed = [prefix for prefix in space.sessions if prefix.startswith(f"{parts[0]}/")]
            return sum(len(space.sessions.pop(prefix)) for prefix in doomed)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._leave(self._endpoint)

    def _usable(self) -> Space:
        if self._closed:
            raise ClosedError(f"the cache {self._endpoint} was closed")
        return self._space

    def _ref(self, key: str, version: int, payload: Payload) -> ObjectRef:
        return ObjectRef(self._endpoint, key, version, payload.format, payload.size)


def _missing(ref: ObjectRef, current: int) -> ObjectNotFoundError:
    if current:
        return ObjectNotFoundError(f"{ref.key} has version {current}; version {ref.version} is not kept")
    return ObjectNotFoundError(f"there is no object {ref.key}", hint="it was deleted, or its session was closed")


def _frozen(payload: Payload) -> Payload:
    if not payload.buffers:
        return payload
    return Payload(payload.format, payload.data, tuple(map(_frozen_buffer, payload.buffers)))


def _frozen_buffer(buffer: Buffer) -> Buffer:
    if isinstance(buffer, bytearray) or (isinstance(buffer, memoryview) and not buffer.readonly):
        return bytes(buffer)
    return buffer
