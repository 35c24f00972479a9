"""The ``flight`` cache."""

from __future__ import annotations

from flame_host.api import CacheError, ObjectStore
from flame_host.wire.lending import borrow


class FlightCache:
    """Objects in the cache server of a Flame cluster; ``grpcs://`` with TLS."""

    name = "flight"
    schemes = ("grpc", "grpcs", "grpc+tls")

    def open(self, endpoint: str) -> ObjectStore:
        borrow("pyarrow")
        from flame_cache_flight.location import location_of
        from flame_cache_flight.objects import FlightObjects

        if not endpoint:
            raise CacheError(
                "the flight cache needs an endpoint",
                hint="set FLAME_CACHE_ENDPOINT, or  cache: {endpoint: grpc://host:9090}  in flame.yaml",
            )
        return FlightObjects(location_of(endpoint))
