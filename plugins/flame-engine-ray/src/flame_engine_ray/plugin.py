"""Registration."""

from __future__ import annotations

from flame_host.api import Connection, Engine, HostServices, hookimpl


class RayEngine:
    """Executors are Ray actors, in each of which our host runs a worker: ``ray:``, ``ray:auto``, ``ray://host:10001``."""

    name = "ray"
    schemes = ("ray",)

    def connect(self, endpoint: str, services: HostServices) -> Connection:
        from flame_engine_ray.connection import RayConnection

        return RayConnection(endpoint, services)


@hookimpl
def flame_engines() -> list[Engine]:
    return [RayEngine()]
