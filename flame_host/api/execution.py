"""What runs sessions, and what it is given to do so: engines, their connections and sessions, the host's services, observers.

Objects of these kinds are used from several threads.

Longer than 300 lines, most of them what each method may assume, must keep and can raise: whoever writes an engine reads it in one go.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, runtime_checkable

from flame_host.api.buffers import Buffer, Payload
from flame_host.api.capabilities import Capabilities
from flame_host.api.formats import Cache, ObjectStore, Serializer
from flame_host.api.packages import Environment
from flame_host.api.sessions import Application, CallOptions, Event, LogRecord, Plan, SessionInfo, SessionSpec

__all__ = ["EVENTS", "Connection", "Engine", "HostServices", "Lease", "Observer", "Session", "Task"]


class Task(Protocol):
    """One pending call, made by the client; the engine reports to it. Called from engine threads; must not block.

    ``frame``, ``number``, ``attempts`` and ``options`` are the engine's to use.
    """

    frame: Any
    number: int
    attempts: int
    options: CallOptions | None

    def begin(self) -> bool:
        """The engine is about to hand it to a worker; False if it was cancelled, and it is dropped.

        Called again when it is handed to another worker after the first was lost; True then, unless cancelled meanwhile.
        """
        ...

    def succeed(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        """The encoded result."""
        ...

    def fail_remotely(self, report: bytes) -> None:
        """The task raised; ``report`` is the worker's error report (see ``flame_host.worker.runtime.bootstrap``)."""
        ...

    def fail(self, error: BaseException) -> None:
        """It ended without an answer of its own."""
        ...

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        ...

    def open_stream(self) -> None:
        """It is a generator: items may follow, and `succeed` after the last."""
        ...

    def stream(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        """One item of a generator."""
        ...


class Lease(Protocol):
    """A ready environment in use: it is not collected as garbage until the lease is released."""

    @property
    def environment(self) -> Environment: ...

    def release(self) -> None:
        """Idempotent."""
        ...


class Session(Protocol):
    """An open session."""

    @property
    def session_id(self) -> str:
        """Unique at its engine; what `Connection.get_session` takes."""
        ...

    def submit(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer] = (), references: Sequence[Payload] = ()) -> None:
        """Queue a call. Never blocks on the worker. From here on the task ends, once, in one of its four ways.

        Args:
            method: method of the execution object, empty to call the object itself.
            data, buffers: the encoded ``(args, kwargs)``.
            references: what the indices written by ``reference`` stand for, in order.

        Raises:
            ClosedError: the session, or its connection, is closed; the task is as it was.
        """
        ...

    def drive(self, task: Task, enough: Callable[[], bool], timeout: float | None = None) -> None:
        """The caller is going to wait until ``enough()``: let its thread do some of the engine's work for this task meanwhile.

        May return before, at once even; the caller then waits in its own way. ``enough`` is called often, and must be quick.

        Raises:
            Nothing of its own: what befalls the task is told to the task. KeyboardInterrupt passes.
        """
        ...

    def cancel(self, task: Task, *, force: bool = False) -> bool:
        """Take it out of the queue, or ask its worker to raise in it; with force, kill the worker if it does not.

        Returns:
            Whether the task was taken out or its worker told; False for one that has ended, or an engine that cannot.

        Raises:
            Nothing: a session that is closed has nothing to cancel.
        """
        ...

    def grant(self, task: Task, taken: int) -> None:
        """The consumer has taken this many of the task's items in all; so much may be said twice, and late, without harm.

        Raises:
            Nothing: a task that has ended needs no more.
        """
        ...

    def info(self) -> SessionInfo:
        """How many of its tasks wait, run, and have ended how; also of a closed session.

        Raises:
            SessionError: the engine cannot be asked any more.
        """
        ...

    def close(self, *, wait: bool = True) -> None:
        """No more calls; waits for those queued, unless told not to, then ends the workers. Closing twice is fine.

        Tasks that are not waited for and have not begun fail with `ClosedError`.

        Raises:
            SessionError: the engine is out of reach; what was queued there goes on without anybody to hear of it.
        """
        ...


class Connection(Protocol):
    """A connected engine.

    Whatever has to ask a server may also raise `SessionError` or `ConfigError`, saying that it is out of reach or refuses us.
    """

    @property
    def endpoint(self) -> str:
        """As users would write it, without credentials and options."""
        ...

    @property
    def objects(self) -> ObjectStore:
        """Where results and shared objects are kept so that the engine's workers can get them."""
        ...

    def capabilities(self) -> Capabilities:
        """What its workers' hosts can do, and what the engine is like. A client decides by this and never by an engine's name.

        Raises:
            ConfigError: the hosts cannot be asked, and nothing is known of them.
        """
        ...

    def register_application(self, application: Application) -> None:
        """Make it known under its name.

        Raises:
            ApplicationExistsError: the name is taken. ApplicationError: it asks for what this engine cannot do.
        """
        ...

    def update_application(self, application: Application) -> None:
        """Replace a registered application, for sessions opened from now on; those that are open go on as they are.

        Raises:
            ApplicationNotFoundError: none has this name.
        """
        ...

    def unregister_application(self, name: str) -> None:
        """Forget an application that has no open sessions.

        Raises:
            ApplicationNotFoundError: none has this name. ApplicationError: it has open sessions.
        """
        ...

    def get_application(self, name: str) -> Application | None:
        """The application as it was registered, or updated last; None when there is none.

        Raises:
            Nothing of its own.
        """
        ...

    def list_applications(self) -> Sequence[Application]:
        """All that are registered, the template ``flmrun`` among them.

        Raises:
            Nothing of its own.
        """
        ...

    def open_session(self, spec: SessionSpec) -> Session:
        """Open a session of a registered application. Workers may be started later: that one cannot be is told to its tasks.

        Raises:
            ApplicationNotFoundError: nothing is registered under ``spec.application``. ApplicationError: the session's id is taken.
            ConfigError: the spec asks for what this engine cannot do; naming the field. FormatNotAllowedError: the code's format is none
                of the plan's.
        """
        ...

    def get_session(self, session_id: str) -> SessionInfo:
        """A session by its id, closed ones included.

        Raises:
            SessionNotFoundError: none has this id.
        """
        ...

    def list_sessions(self) -> Sequence[SessionInfo]:
        """Those of this engine, closed ones included.

        Raises:
            Nothing of its own.
        """
        ...

    def close_session(self, session_id: str) -> None:
        """As `Session.close`, by its id.

        Raises:
            SessionNotFoundError: none has this id.
        """
        ...

    def close(self) -> None:
        """End every session and process that this connection started; idempotent.

        Raises:
            Nothing: what cannot be ended in time is left to whoever watches over it.
        """
        ...


class HostServices(Protocol):
    """What a host hands to an engine provider when it connects."""

    @property
    def root(self) -> Path:
        """Where the host keeps environments, trees and working directories."""
        ...

    def capabilities(self) -> Capabilities:
        """What this host can do. An engine whose workers are on this host gives it on, with what it itself is like
        (``dataclasses.replace(services.capabilities(), sees_client_files=True)``).

        Raises:
            PluginError: two plugins clash.
        """
        ...

    def provision(self, application: Application) -> Lease:
        """Fetch, verify, unpack and install; quick when it was done before. Blocks until the environment is ready.

        Raises:
            PackageError: it cannot be had, or must not be unpacked. ProvisionError: it cannot be installed. ConfigError: what it asks
                for makes no sense. Each with stage, provider and application.
        """
        ...

    def support(self, environment: Environment, plan: Plan) -> Path:
        """A directory with what the plan's codecs, and the client, need in that environment's workers; goes last on their path.

        Raises:
            PluginError: no plugin here serves one of the plan's formats. ProvisionError: the directory cannot be made.
        """
        ...

    def serializer(self, format: str) -> Serializer:
        """By the name that payloads say, ``"cloudpickle/1"``.

        Raises:
            PluginError: no plugin here serves it. FormatNotAllowedError: of another version, or the host's policy denies it.
        """
        ...

    def cache(self, name: str) -> Cache:
        """By its name.

        Raises:
            PluginError: no plugin here serves it.
        """
        ...

    def log(self, record: LogRecord) -> None:
        """Where workers' output goes.

        Raises:
            Nothing.
        """
        ...

    def observe(self, event: Event) -> None:
        """Tell the observers; see `EVENTS`. Quick: it happens in the calling thread, and they are told from another.

        Raises:
            Nothing.
        """
        ...


@runtime_checkable
class Engine(Protocol):
    """A way to run sessions."""

    @property
    def name(self) -> str: ...

    @property
    def schemes(self) -> Sequence[str]:
        """Endpoint schemes (``"local"``, ``"http"``): the keys users type."""
        ...

    def connect(self, endpoint: str, services: HostServices) -> Connection:
        """Connect; what can wait until it is needed does.

        Args:
            endpoint: with the scheme. A client adds to one with a host (``scheme://…``) what its configuration says of the way there,
                as a query: ``cache`` (endpoint of the object cache) and ``ca_file`` (certificates to trust).

        Raises:
            ConfigError: it is no endpoint of this engine, or has an option that this engine knows nothing to do with.
        """
        ...


EVENTS: Mapping[str, str] = MappingProxyType(
    {
        "provision.fetch": "a package is being fetched; detail: the application",
        "provision.unpack": "it is being unpacked; detail: the application",
        "provision.install": "dependencies are being installed; detail: the application",
        "provision.installed": "that is over, well or not; detail: the application",
        "session.opened": "a session was opened",
        "session.closed": "a session was closed",
        "session.stalled": "calls wait, no worker does anything and nothing is under way to change that; detail: the session's state",
        "executor.ready": "a worker takes tasks; detail: ``pid`` and its process id",
        "executor.failed": "a worker could not be started; detail: why",
        "executor.lost": "a worker died; detail: how",
    }
)
"""Every kind of event that engines and hosts of ours tell of. No event is about a single task: there may be a hundred thousand of them
in a second, and `Session.info` counts them. An observer passes over kinds it does not know; another engine may have more."""


@runtime_checkable
class Observer(Protocol):
    """Receives what happens, in batches, from a background thread; it can neither slow down nor stop a task."""

    @property
    def name(self) -> str: ...

    def observe(self, events: Sequence[Event]) -> None:
        """What happened since the last time, in order; kinds are those of `EVENTS`.

        Raises:
            Anything: it is logged, and this observer is not asked any more.
        """
        ...
