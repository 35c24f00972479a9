"""Where a client's objects are kept: in its engine's own cache, or in another that the configuration names."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from flame_host.api import Cache, ConfigError, ObjectRef, ObjectStore, Payload, Plan, Want, Wants, distribution_of, without_secrets
from flame_host.api.negotiation import REST

if TYPE_CHECKING:
    from flame_host import Host
    from flame_host.api import Connection
    from flamepy._config.settings import Settings


class Stores:
    """The object caches of one connection.

    Attributes:
        engines: the engine's own.
    """

    def __init__(self, host: Host, connection: Connection) -> None:
        self._host = host
        self.engines: ObjectStore = connection.objects
        self._opened: dict[str, ObjectStore] = {}
        self._lock = threading.Lock()

    def wants(self, settings: Settings) -> Wants:
        """What is wanted of caches, for the negotiation: the one that serves the endpoint, else one by name, else the engine's own.

        Raises:
            ConfigError: nothing here serves the endpoint, or not by a name that was asked for.
        """
        asked = settings.wants.families.get("caches")
        if settings.cache:
            where = f"{settings.origins.get('cache', 'cache')} {without_secrets(settings.cache)}"
            name = self._serving(settings.cache)
            if not name:
                scheme = settings.cache.partition(":")[0]
                known = ", ".join(f"{scheme}:" for cache in self._caches().values() for scheme in cache.schemes)
                missing = distribution_of("stores", scheme)
                hint = f"pip install {missing}" if missing else "install the plugin that serves it, or leave the endpoint out"
                raise ConfigError(f"{where}: no cache here serves {scheme}:, only {known or 'none at all'}", hint=hint)
            if asked is not None and name not in asked.names and REST not in asked.names:
                raise ConfigError(
                    f"{where} is served by the cache {name}, and {asked.origin} wants {', '.join(asked.names)}",
                    hint="leave one of them out",
                )
            asked = Want((name,), where)
        elif asked is None:
            own = self._serving(self.engines.endpoint)
            asked = Want((own, REST), "the engine") if own else None
        return settings.wants if asked is None else Wants({**settings.wants.families, "caches": asked})

    def open(self, plan: Plan, endpoint: str) -> ObjectStore:
        """The store of an application.

        Args:
            endpoint: of its cache, where one was named.
        """
        own = self._serving(self.engines.endpoint)
        if not endpoint and plan.cache == (own or plan.cache):
            return self.engines
        cache = self._caches()[plan.cache]
        with self._lock:
            store = self._opened.get(endpoint) or cache.open(endpoint)
            return self._opened.setdefault(store.endpoint, store)

    def at(self, endpoint: str) -> ObjectStore:
        """The open one that references of an endpoint belong to, the engine's where none does."""
        return self._opened.get(endpoint, self.engines)

    def knows(self, endpoint: str) -> bool:
        return endpoint in self._opened or endpoint == self.engines.endpoint

    def get(self, ref: ObjectRef) -> Payload:
        return self.at(ref.endpoint).get(ref)

    def close(self) -> None:
        """The engine's is closed by its connection."""
        for store in self._opened.values():
            store.close()
        self._opened.clear()

    def _caches(self) -> dict[str, Cache]:
        return dict(self._host.catalog.all("caches"))

    def _serving(self, endpoint: str) -> str:
        """Name of the cache that serves an endpoint; empty when none does."""
        scheme = endpoint.partition(":")[0]
        return next((name for name, cache in self._caches().items() if scheme in cache.schemes), "")
