"""The caches a session's contents stand in: the cluster's for what is stored here, any for what is referred to."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from flame_host.api import Cache, CacheError, ObjectRef, ObjectStore, Payload

if TYPE_CHECKING:
    from flame_host._host import Host

CACHE_VARIABLE = "FLAME_CACHE_ENDPOINT"


class Objects:
    """Stores by endpoint, opened when first needed."""

    def __init__(self, host: Host, cache: str) -> None:
        """Args:
        cache: name of the provider the plan chose, used where the cluster names no endpoint.
        """
        self._host = host
        self._cache = cache
        self._stores: dict[str, ObjectStore] = {}

    def put(self, prefix: str, payload: Payload) -> ObjectRef:
        """Store in the cluster's cache, or without one in a directory of this machine."""
        return self._default().put(prefix, payload)

    def get(self, ref: ObjectRef) -> Payload:
        """Of the reference's endpoint, or, when it names none, of the cluster's cache: clients may reach that under another name.

        Raises:
            CacheError: no plugin serves the endpoint, or the object is gone.
        """
        if not ref.endpoint:
            return self._default().get(ref)
        return self._open(ref.endpoint).get(ref)

    def close(self) -> None:
        for store in self._stores.values():
            store.close()
        self._stores.clear()

    def _default(self) -> ObjectStore:
        endpoint = os.environ.get(CACHE_VARIABLE, "")
        if endpoint:
            return self._open(endpoint)
        provider = self._host.cache(self._cache)
        if "file" in provider.schemes:
            return self._open((self._host.root / "objects").as_uri())
        return self._stores.setdefault("", provider.open(""))

    def _open(self, endpoint: str) -> ObjectStore:
        if endpoint not in self._stores:
            self._check(endpoint)
            self._stores[endpoint] = self._provider(endpoint).open(endpoint)
        return self._stores[endpoint]

    def _check(self, endpoint: str) -> None:
        """A reference comes from a peer. Opening a directory makes it, so only those directories are opened that are caches already."""
        known = (os.environ.get(CACHE_VARIABLE, ""), (self._host.root / "objects").as_uri())
        if endpoint.partition(":")[0].lower() == "file" and endpoint not in known:
            raise CacheError(
                f"a reference names {endpoint!r:.200}, which is no cache of this machine", hint=f"set {CACHE_VARIABLE} to it, if it is"
            )

    def _provider(self, endpoint: str) -> Cache:
        scheme = endpoint.partition(":")[0]
        providers: dict[str, Cache] = dict(self._host.catalog.all("caches"))
        for provider in providers.values():
            if scheme in provider.schemes:
                return provider
        flight = scheme in ("grpc", "grpcs", "grpc+tls")
        raise CacheError(
            f"no plugin serves the cache {endpoint}; on offer: {', '.join(sorted(providers)) or 'none'}",
            hint=f"pip install {'flame-cache-flight' if flight else f'flame-cache-{scheme}'}  beside flame-host",
        )
