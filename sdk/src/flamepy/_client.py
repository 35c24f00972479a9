"""This process's connections to engines: one for each endpoint, shared by all Runners and by the functions of `flamepy`."""

from __future__ import annotations

import atexit
import contextlib
import inspect
import os
import threading
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flame_host.api import (
    Application,
    ApplicationNotFoundError,
    Buffer,
    ConfigError,
    Connection,
    FormatNotAllowedError,
    NotSerializableError,
    Payload,
    Plan,
    Resources,
    Serializer,
    SessionSpec,
    check_format,
    intersect_policies,
)
from flamepy._calls.service import is_function, name_of
from flamepy._config.amounts import resources_of

if TYPE_CHECKING:
    import logging

    from flame_host import Host
    from flamepy._calls.by_value import ByValue
    from flamepy._calls.logs import TaskLogs
    from flamepy._calls.session import Source

_lock = threading.RLock()
_clients: dict[str, Client] = {}


class Client:
    """One engine, connected.

    Attributes:
        users: how many hold it; the last to let go closes the connection.
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
        self.logs: TaskLogs = TaskLogs()
        self.users = 0
        self.travelling: dict[str, ByValue] = {}
        self.policies: dict[str, Mapping[str, str]] = {"": _configured_policy()}
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
        from flame_host.api import buffer_view

        return self._allowed(payload.format).loads(payload.data, buffers=[buffer_view(part) for part in payload.buffers])

    def by_value(self, application: Application) -> ByValue:
        """Which modules travel by value to an application; without a package of its own all that are not installed do."""
        from flamepy._calls.by_value import ByValue

        if application.name not in self.travelling:
            self.travelling[application.name] = ByValue(self.serializer(application.plan), None)
        return self.travelling[application.name]

    def close(self) -> None:
        try:
            for travelling in self.travelling.values():
                travelling.close()
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


def _configured_policy() -> Mapping[str, str]:
    """What a Runner in this directory that says nothing would keep to."""
    from pathlib import Path

    from flamepy._config.settings import resolve

    return resolve(Path.cwd(), {"storage": "file:///"}).policy


def default_endpoint() -> str:
    """Where the functions of `flamepy` go: as for a Runner in this directory that says nothing."""
    from pathlib import Path

    from flamepy._config.settings import resolve

    return resolve(Path.cwd(), {"storage": "file:///"}).engine


_held: dict[str, Client] = {}


def default_client() -> Client:
    """The client for calls that belong to no Runner; it stays connected until the program ends.

    Without an endpoint of its own such a call goes where the open Runner is: to the only client there is.
    """
    with _lock:
        endpoint = default_endpoint()
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


# ---------------------------------------------------------------------- opening sessions


_SERVICE_OPTIONS = (
    "warmup",
    "min_instances",
    "max_instances",
    "retries",
    "timeout",
    "priority",
    "checkpoint",
    "isolation",
    "limits",
    "session_id",
)


def open_source(
    client: Client,
    application: Application,
    execution_object: Any,
    *,
    args: tuple[Any, ...] = (),
    kwargs: Mapping[str, Any] | None = None,
    autoscale: bool | None = None,
    stateful: bool | None = None,
    warmup: int = 0,
    resreq: Resources | Mapping[str, Any] | str | None = None,
    logs: str = "all",
    logger: logging.Logger | None = None,
    session_id: str = "",
    **spec: Any,
) -> tuple[Source, bool]:
    """Open a session for an execution object; returns it, and whether its calls keep their order."""
    from flamepy._calls.errors import remember_limits
    from flamepy._calls.session import Source
    from flamepy._config.keywords import check_service

    check_service(execution_object, autoscale, stateful, {"warmup": warmup, **spec}, _SERVICE_OPTIONS)
    ordered = (not is_function(execution_object) if stateful is None else stateful) if autoscale is None else not autoscale
    if spec.get("checkpoint") and not ordered:
        raise ConfigError("checkpoint= is for services that keep a state", hint="serve a class or an instance, or say stateful=True")
    serializer = client.serializer(application.plan)
    client.by_value(application).add(execution_object)
    if (args or kwargs) and "executes-code" not in serializer.traits:
        raise NotSerializableError(
            f"{serializer.name} sends a class by its import path, and no constructor arguments with it", hint="pass an instance instead"
        )
    served: Any = partial(execution_object, *args, **(kwargs or {})) if args or kwargs else execution_object
    session = client.connection.open_session(
        SessionSpec(
            application=application.name,
            common_data=_stable(client, application.name, _encode_served(serializer, served, execution_object, application)),
            session_id=session_id,
            stateful=ordered,
            instantiate=inspect.isclass(execution_object),
            warmup=warmup,
            resources=resources_of(resreq),
            **spec,
        )
    )
    label = name_of(execution_object)
    remember_limits(session.session_id, spec.get("limits"))
    client.logs.watch(session.session_id, label, logs, logger)
    source = Source(client.connection, session, serializer, application=application.name, label=label, logs=client.logs)
    return source, ordered


def open_service(app: str, execution_object: Any, **options: Any) -> tuple[Source, bool]:
    """For ``RunnerService(app, execution_object)``: on an application registered by somebody."""
    client = default_client()
    application = client.connection.get_application(app)
    if application is None:
        known = ", ".join(entry.name for entry in client.connection.list_applications())
        raise ApplicationNotFoundError(
            f"application {app!r} is not registered; registered: {known}", hint="with Runner(name) as rr: rr.service(...) registers one"
        )
    return open_source(client, application, execution_object, **options)


def _encode(serializer: Serializer, value: object) -> Payload:
    buffers: list[Buffer] = []
    data = serializer.dumps(value, buffers=buffers)
    return Payload(f"{serializer.name}/{serializer.version}", data, tuple(buffers))


def _encode_served(serializer: Serializer, served: Any, execution_object: Any, application: Application) -> Payload:
    try:
        buffers: list[Buffer] = []
        data = serializer.dumps_code(served, buffers=buffers)
        return Payload(f"{serializer.name}/{serializer.version}", data, tuple(buffers))
    except NotSerializableError as error:
        if "executes-code" not in serializer.traits and application.python_version:
            error.hint = (
                f"for workers of Python {application.python_version} code travels by its import path: move {name_of(execution_object)} "
                "to a module of the project, or leave python_version out"
            )
        if error.path.startswith(("global", "closure")):
            error.hint = (
                f"make it within {name_of(execution_object)}, or in a class whose instances are made in the worker: rr.service(Class)"
            )
        raise


def _stable(client: Client, application: str, payload: Payload) -> Payload:
    """The payload with buffers that the caller cannot change any more: workers that start later must load the same object."""
    if not any(isinstance(buffer, memoryview) for buffer in payload.buffers):
        return payload
    if client.endpoint.partition(":")[0] == "local":  # there, shared memory; elsewhere storing would send it twice
        return client.connection.objects.get(client.connection.objects.put(f"{application}/services", payload))
    buffers = tuple(bytes(buffer) if isinstance(buffer, memoryview) else buffer for buffer in payload.buffers)
    return Payload(payload.format, payload.data, buffers)
