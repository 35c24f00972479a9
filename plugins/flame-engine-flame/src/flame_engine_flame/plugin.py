"""Offers the ``flame`` engine."""

from __future__ import annotations

from flame_host.api import Connection, HostServices, hookimpl
from flame_host.wire.lending import borrow


class FlameEngine:
    """Sessions and tasks of a Flame cluster, whose session manager is at the endpoint."""

    name = "flame"
    schemes = ("http", "https")

    def connect(self, endpoint: str, services: HostServices) -> Connection:
        borrow("grpc")
        from flame_engine_flame.connection import FlameConnection
        from flame_engine_flame.endpoint import cluster_of

        return FlameConnection(cluster_of(endpoint), services)


@hookimpl
def flame_engines() -> list[object]:
    return [FlameEngine()]
