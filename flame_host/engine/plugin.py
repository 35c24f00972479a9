"""The host's own engines come through the same door as everybody's."""

from __future__ import annotations

from flame_host.api import Connection, HostServices, hookimpl


class LocalEngine:
    """Worker processes on this machine; nothing to start beforehand."""

    name = "local"
    schemes = ("local",)

    def connect(self, endpoint: str, services: HostServices) -> Connection:
        from flame_host.engine.local import LocalConnection

        return LocalConnection(endpoint or "local:", services)


class InlineEngine:
    """The calling thread of this process, for debugging: calls run at once, values are serialized all the same."""

    name = "inline"
    schemes = ("inline",)

    def connect(self, endpoint: str, services: HostServices) -> Connection:
        from flame_host.engine.inline import InlineConnection

        return InlineConnection(endpoint or "inline:", services)


@hookimpl
def flame_engines() -> list[object]:
    return [LocalEngine(), InlineEngine()]
