"""Offers the ``flight`` cache, and packages in it by ``grpc://`` and ``grpcs://``."""

from __future__ import annotations

from collections.abc import Iterable

from flame_host.api import Cache, Store, hookimpl


@hookimpl
def flame_caches() -> Iterable[Cache]:
    from flame_cache_flight.flight_cache import FlightCache

    return [FlightCache()]


@hookimpl
def flame_stores() -> Iterable[Store]:
    from flame_cache_flight.packages import FlightPackages

    return [FlightPackages()]
