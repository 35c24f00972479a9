"""Offers the ``local`` cache."""

from __future__ import annotations

from collections.abc import Iterable

from flame_host.api import Cache, hookimpl


@hookimpl
def flame_caches() -> Iterable[Cache]:
    from flame_cache_local.local_cache import LocalCache

    return [LocalCache()]
