"""From an object to a session that serves it: what it is, how its calls are ordered, how its code is written."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any

from flame_host.api import (
    Application,
    ApplicationNotFoundError,
    Buffer,
    ConfigError,
    NotSerializableError,
    Payload,
    Resources,
    Serializer,
    SessionSpec,
)
from flamepy._calls.introspection import is_function, name_of
from flamepy._calls.session import SessionHandle
from flamepy._client import Client, default_client
from flamepy._config.amounts import resources_of
from flamepy._config.keywords import check_service

if TYPE_CHECKING:
    import logging

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


def open_handle(
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
) -> tuple[SessionHandle, bool]:
    """Open a session for an execution object; returns it, and whether its calls keep their order."""
    from flamepy._calls.errors import remember_limits

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
    handle = SessionHandle(
        client.connection, session, serializer, application=application.name, label=label, logs=client.logs, stores=client.stores,
        objects=client.objects_of(application.name),
    )  # fmt: skip
    return handle, ordered


def open_service(app: str, execution_object: Any, **options: Any) -> tuple[SessionHandle, bool]:
    """For ``RunnerService(app, execution_object)``: on an application registered by somebody."""
    client = default_client()
    application = client.connection.get_application(app)
    if application is None:
        known = ", ".join(entry.name for entry in client.connection.list_applications())
        raise ApplicationNotFoundError(
            f"application {app!r} is not registered; registered: {known}", hint="with Runner(name) as rr: rr.service(...) registers one"
        )
    return open_handle(client, application, execution_object, **options)


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
    if client.connection.capabilities().shares_memory:  # elsewhere storing would send it twice
        objects = client.stores.engines
        return objects.get(objects.put(f"{application}/services", payload))
    buffers = tuple(bytes(buffer) if isinstance(buffer, memoryview) else buffer for buffer in payload.buffers)
    return Payload(payload.format, payload.data, buffers)
