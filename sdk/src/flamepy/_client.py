"""This process's connections to engines: one for each endpoint, shared by all Runners and by the functions of `flamepy`."""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from flame_host.api import (
    Application,
    Buffer,
    ConfigError,
    Connection,
    FormatNotAllowedError,
    ObjectStore,
    Payload,
    Plan,
    Serializer,
    buffer_view,
    check_format,
    intersect_policies,
)
from flame_host.api.negotiation import REST
from flamepy._stores import Stores

if TYPE_CHECKING:
    from flame_host import Host
    from flamepy._calls.by_value import ByValue
    from flamepy._calls.logs import TaskLogs
    from flamepy._config.settings import Settings

_lock = threading.RLock()
_clients: dict[str, Client] = {}


class Client:
    """One engine, connected.

    Attributes:
        stores: where its objects are kept.
        users: how many hold it; the last to let go closes the connection.
        by_value_modules: application → which modules are sent to it whole.
        policies: of the configuration and, by name, of each application that is open; what one denies is denied to all values.
    """

    def __init__(self, endpoint: str) -> None:
        from flame_host import Host
        from flamepy._calls.activity import Activity
        from flamepy._calls.logs import TaskLogs

        _same_version()
        self.endpoint = endpoint
        self.host: Host = Host()
        self.connection: Connection = self.host.connect(endpoint)
        self.stores = Stores(self.host, self.connection)
        self.logs: TaskLogs = TaskLogs()
        self.application_objects: dict[str, ObjectStore] = {}
        self.users = 0
        self.by_value_modules: dict[str, ByValue] = {}
        self.policies: dict[str, Mapping[str, str]] = {"": _default_settings().policy}
        self.activity = Activity()
        self._remove_sinks = (self.host.add_log_sink(self.logs), self.host.add_event_sink(self.activity.observe))

    def serializer(self, plan: Plan) -> Serializer:
        return self._allowed(plan.serializer)

    def _allowed(self, format: str) -> Serializer:
        """Raises `FormatNotAllowedError` where any policy in force here denies the format."""
        serializer = self.host.catalog.serializer(format)
        check_format(format, serializer, intersect_policies(*list(self.policies.values())))
        return serializer

    def plan_for_values(self) -> Plan:
        """For values that belong to no application: the first format that no policy denies."""
        template = self.connection.get_application("flmrun")
        plan = template.plan if template is not None else Plan()
        denied = intersect_policies(self.host.settings.policy, *list(self.policies.values()))
        for name, serializer in self.host.catalog.all("serializers").items():
            with contextlib.suppress(FormatNotAllowedError):
                check_format(name, serializer, denied)
                format = f"{name}/{serializer.version}"
                return plan if plan.serializer == format else Plan(serializers=(format,))
        return plan

    def encode(self, value: object, plan: Plan) -> Payload:
        return _encode(self.serializer(plan), value)

    def decode(self, payload: Payload) -> Any:
        return self._allowed(payload.format).loads(payload.data, buffers=[buffer_view(part) for part in payload.buffers])

    def by_value(self, application: Application) -> ByValue:
        """Which modules travel by value to an application; without a package of its own all that are not installed do."""
        from flamepy._calls.by_value import ByValue

        if application.name not in self.by_value_modules:
            self.by_value_modules[application.name] = ByValue(self.serializer(application.plan), None)
        return self.by_value_modules[application.name]

    def objects_of(self, application: str) -> ObjectStore:
        """Where an application's objects are kept: as its Runner was told, else at its engine's own cache."""
        return self.application_objects.get(application, self.stores.engines)

    @cached_property
    def objects(self) -> ObjectStore:
        """For objects that belong to no Runner: where those of a Runner in this directory that says nothing would be."""
        settings = _default_settings()
        wanted = self.stores.wants(settings).of("caches").names[0]
        return self.stores.open(Plan(cache=wanted), settings.cache) if wanted != REST else self.stores.engines

    def close(self) -> None:
        try:
            for modules in self.by_value_modules.values():
                modules.close()
            self.stores.close()
            self.connection.close()
        finally:
            self.activity.end()
            for remove in self._remove_sinks:
                remove()


def _same_version() -> None:
    """What pip would not have installed together was installed with --no-deps, or in two steps: say so before it fails in a riddle."""
    import flame_host
    import flamepy

    if flamepy.__version__ != flame_host.__version__:
        raise ConfigError(
            f"flame-host-sdk is {flamepy.__version__} and flame-host is {flame_host.__version__}; they work together only in one version",
            hint=f'pip install --upgrade "flame-host-sdk=={flamepy.__version__}"',
        )


def acquire(endpoint: str) -> Client:
    """The client of an endpoint, to be given back with `release`."""
    with _lock:
        client = _clients.get(endpoint)
        if client is None:
            client = _clients[endpoint] = Client(endpoint)
        client.users += 1
        return client


def release(client: Client) -> None:
    with _lock:
        client.users -= 1
        if client.users > 0:
            return
        if _clients.get(client.endpoint) is client:
            del _clients[client.endpoint]
    client.close()


def _default_settings() -> Settings:
    """What holds for a Runner in this directory that says nothing."""
    from pathlib import Path

    from flamepy._config.settings import resolve

    return resolve(Path.cwd(), {})


_held: dict[str, Client] = {}


def default_client() -> Client:
    """The client for calls that belong to no Runner; it stays connected until the program ends.

    Without an endpoint of its own such a call goes where the open Runner is: to the only client there is.
    """
    with _lock:
        endpoint = _default_settings().engine
        if endpoint not in _clients and len(_clients) == 1:
            return next(iter(_clients.values()))
        if endpoint not in _held:
            _held[endpoint] = acquire(endpoint)
        return _held[endpoint]


@atexit.register
def disconnect() -> None:
    """Close every connection of this process. Called when the program ends; calling it earlier is fine."""
    with _lock:
        clients = list(_clients.values())
        _clients.clear()
        _held.clear()
    for client in clients:
        client.close()


def _forget() -> None:
    """In a forked child: the sockets and workers are the parent's."""
    global _lock
    _lock = threading.RLock()
    _clients.clear()
    _held.clear()


os.register_at_fork(after_in_child=_forget)


def _encode(serializer: Serializer, value: object) -> Payload:
    buffers: list[Buffer] = []
    data = serializer.dumps(value, buffers=buffers)
    return Payload(f"{serializer.name}/{serializer.version}", data, tuple(buffers))
