"""The cluster's object cache, opened when it is first needed: a program with small values never does."""

from __future__ import annotations

import threading

from flame_host.api import HostServices, ObjectRef, ObjectStore, Payload


class ClusterObjects:
    """An `ObjectStore` before another."""

    def __init__(self, endpoint: str, services: HostServices) -> None:
        self._address = endpoint
        self._services = services
        self._opened: ObjectStore | None = None
        self._lock = threading.Lock()

    @property
    def endpoint(self) -> str:
        return self._address.partition("?")[0]

    @property
    def _store(self) -> ObjectStore:
        with self._lock:
            if self._opened is None:
                self._opened = self._services.cache("flight").open(self._address)
            return self._opened

    def put(self, key: str, payload: Payload) -> ObjectRef:
        return self._store.put(key, payload)

    def get(self, ref: ObjectRef) -> Payload:
        return self._store.get(ref)

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        return self._store.update(ref, payload, if_version=if_version)

    def delete(self, key: str) -> int:
        return self._store.delete(key)

    @property
    def used(self) -> bool:
        return self._opened is not None

    def close(self) -> None:
        with self._lock:
            if self._opened is not None:
                self._opened.close()
