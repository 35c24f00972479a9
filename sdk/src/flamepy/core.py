"""Applications and sessions, in the words of Flame: what lies below the Runner."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

from flame_host.api import Application, ApplicationNotFoundError, ClosedError, SessionInfo, SessionNotFoundError
from flamepy import _client
from flamepy._calls.future import ObjectFuture
from flamepy._calls.introspection import is_function
from flamepy._calls.opening import open_handle
from flamepy._calls.submission import CallSite
from flamepy._refs import ObjectRef
from flamepy.cache import delete_objects, get_object, put_object, update_object

__all__ = [
    "ApplicationAttributes", "ObjectFuture", "ObjectRef", "RunnerContext", "RunnerRequest", "RunnerServiceKind", "Session",
    "close_session", "create_session", "delete_objects", "get_application", "get_object", "get_session", "list_applications",
    "list_sessions", "open_session", "put_object", "register_application", "unregister_application", "update_object",
]  # fmt: skip


class RunnerServiceKind(IntEnum):
    """Whether calls share a state, on one worker, or not."""

    Stateful = 0
    Stateless = 1


@dataclasses.dataclass
class RunnerContext:
    """What a session of a Runner application is about.

    Attributes:
        execution_object: a function, a class (instantiated without arguments) or an instance.
        kind: by default stateless for functions and stateful for the others.
        autoscale: the same question, asked the other way round. warmup: workers started at once.
    """

    execution_object: Any
    kind: RunnerServiceKind | None = None
    stateful: bool | None = None
    autoscale: bool | None = None
    warmup: int = 0
    min_instances: int = 0
    max_instances: int = 0

    def __post_init__(self) -> None:
        if self.kind is not None:
            self.kind = RunnerServiceKind(self.kind)
            if self.stateful is None:
                self.stateful = self.kind is RunnerServiceKind.Stateful
        if self.stateful is None:
            self.stateful = not is_function(self.execution_object) if self.autoscale is None else not self.autoscale
        if self.autoscale is None:
            self.autoscale = not self.stateful
        if self.stateful and self.autoscale:
            raise ValueError("a stateful service has one worker; it cannot be scaled")
        self.kind = RunnerServiceKind.Stateful if self.stateful else RunnerServiceKind.Stateless


@dataclasses.dataclass
class RunnerRequest:
    """One call.

    Attributes:
        method: None calls the execution object itself. input_object: a single argument, or a reference to it.
        args, kwargs: at most one of these and ``input_object``.
    """

    method: str | None = None
    args: Sequence[Any] | None = None
    kwargs: Mapping[str, Any] | None = None
    input_object: Any = None

    def __post_init__(self) -> None:
        if self.method is not None and not isinstance(self.method, str):
            raise ValueError(f"method must be a string or None, not {type(self.method).__name__}")
        given = [name for name in ("args", "kwargs", "input_object") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ValueError(f"only one of args, kwargs, input_object can be given, not {' and '.join(given)}")
        if self.args is not None and not isinstance(self.args, (tuple, list)):
            raise ValueError(f"args must be a tuple or a list, not {type(self.args).__name__}")
        if self.kwargs is not None and not isinstance(self.kwargs, Mapping):
            raise ValueError(f"kwargs must be a mapping, not {type(self.kwargs).__name__}")

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        if self.input_object is not None:
            return (self.input_object,), {}
        return tuple(self.args or ()), dict(self.kwargs or {})


@dataclasses.dataclass
class ApplicationAttributes:
    """What is said about an application when it is registered; see `flame_host.api.Application`."""

    command: str = ""
    arguments: Sequence[str] = ()
    url: str = ""
    working_directory: str = ""
    environments: Mapping[str, str] = dataclasses.field(default_factory=dict)
    description: str = ""
    labels: Sequence[str] = ()
    max_instances: int = 1_000_000
    delay_release: float = 60.0


class Session:
    """An open session."""

    def __init__(self, session_id: str, application: str, site: CallSite, client: _client.Client) -> None:
        self.id = session_id
        self.application = application
        self._site = site
        self._client = client
        self._closed = False

    def run(self, request: RunnerRequest | Any = None) -> ObjectFuture[Any]:
        """Make a call and return its future."""
        if self._closed:
            raise ClosedError(f"session {self.id} is closed")
        if not isinstance(request, RunnerRequest):
            request = RunnerRequest(input_object=request)
        args, kwargs = request.arguments()
        return self._site.call(request.method or "", args, kwargs)

    def invoke(self, request: RunnerRequest | Any = None) -> ObjectRef:
        """Make a call, wait for it, and return where its value stands; ``.get()`` or `get_object` gives the value."""
        return self.run(request).ref()

    def info(self) -> SessionInfo:
        return self._site.handle.session.info()

    def __getattr__(self, name: str) -> Any:
        if name in ("state", "creation_time", "completion_time", "pending", "running", "succeeded", "failed", "cancelled"):
            return getattr(self.info(), name)
        raise AttributeError(f"'Session' object has no attribute {name!r}")

    def close(self, *, wait: bool = True) -> None:
        """End it; waits for the calls made."""
        self._closed = True
        _sessions.pop(self.id, None)
        self._site.handle.session.close(wait=wait)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(wait=kind is None)

    def __repr__(self) -> str:
        return f"<Session {self.id} of {self.application} ({'closed' if self._closed else 'open'})>"


_sessions: dict[str, Session] = {}


def create_session(application: str, common_data: Any = None, *, session_id: str = "", **options: Any) -> Session:
    """Open a session of a registered application.

    Args:
        common_data: a `RunnerContext`, or the execution object itself.
        options: as of ``Runner.service``.
    """
    context = common_data if isinstance(common_data, RunnerContext) else RunnerContext(common_data)
    if not callable(context.execution_object) and not inspect.getmembers(type(context.execution_object), inspect.isfunction):
        raise TypeError(
            f"a session of {application!r} needs a RunnerContext, or a function, class or instance; not {context.execution_object!r:.80}"
        )
    client = _client.default_client()
    found = client.connection.get_application(application)
    if found is None:
        raise ApplicationNotFoundError(f"application {application!r} is not registered", hint="list_applications() shows what is")
    handle, ordered = open_handle(
        client, found, context.execution_object, stateful=context.stateful, warmup=context.warmup, session_id=session_id,
        min_instances=context.min_instances, max_instances=context.max_instances, **options,
    )  # fmt: skip
    session = Session(handle.session.session_id, application, CallSite(handle, ordered=ordered), client)
    _sessions[session.id] = session
    return session


def open_session(session_id: str) -> Session:
    """A session that this program has open."""
    session = _sessions.get(session_id)
    if session is None:
        raise SessionNotFoundError(f"session {session_id!r} is not open in this program", hint="create_session(...) opens one")
    return session


def get_session(session_id: str) -> SessionInfo:
    return _client.default_client().connection.get_session(session_id)


def list_sessions() -> list[SessionInfo]:
    return list(_client.default_client().connection.list_sessions())


def close_session(session_id: str) -> None:
    if session_id in _sessions:
        _sessions[session_id].close()
    else:
        _client.default_client().connection.close_session(session_id)


def register_application(name: str | Application, attributes: ApplicationAttributes | Mapping[str, Any] | None = None) -> None:
    """Register an application.

    Args:
        attributes: its ``url`` names a package that stands there already.
    """
    if isinstance(name, Application):
        application = name
    else:
        if not isinstance(attributes, ApplicationAttributes):
            attributes = ApplicationAttributes(**(attributes or {}))
        values = {field.name: getattr(attributes, field.name) for field in dataclasses.fields(attributes) if field.name != "url"}
        values["arguments"], values["labels"] = tuple(values["arguments"]), tuple(values["labels"])
        application = Application(name=name, package=_package_at(attributes.url), **values)
    _client.default_client().connection.register_application(application)


def unregister_application(name: str) -> None:
    _client.default_client().connection.unregister_application(name)


def get_application(name: str) -> Application | None:
    return _client.default_client().connection.get_application(name)


def list_applications() -> list[Application]:
    return list(_client.default_client().connection.list_applications())


def _package_at(url: str) -> Any:
    """A reference to a package somebody has put somewhere: its digest is taken of what stands there now."""
    if not url:
        return None
    import tempfile
    from pathlib import Path

    from flame_host.api import ConfigError, PackageRef
    from flamepy._package.pack import _digest

    host = _client.default_client().host
    archivers = host.catalog.all("archivers")
    plain = url.partition("#")[0].partition("?")[0]
    known = [(end, name) for name, one in archivers.items() for end in one.suffixes]
    suffix, format = next(((end, name) for end, name in [*known, (".whl", "whl")] if plain.endswith(end)), ("", ""))
    if not format:
        raise ConfigError(f"no archiver for {url}; on offer: {', '.join(archivers)}")
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory, "package" + suffix)
        host.catalog.store(url.partition(":")[0]).fetch(url.partition("#")[0], target, size_limit=4 << 30, deadline=600)
        return PackageRef(url=url, digest=_digest(target), size=target.stat().st_size, format=format)
