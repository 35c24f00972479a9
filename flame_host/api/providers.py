"""Contracts of the seven provider families.

A provider is an object with the attributes and methods below; nothing need be inherited. It must be cheap to make (heavy imports
belong in its methods), safe to use from several threads, and keep no state of one application that another could see. Errors a
provider raises come from `flame_host.api.errors`; anything else is wrapped at the edge with the provider's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from flame_host.api.models import (
    Application,
    Buffer,
    CallOptions,
    Capabilities,
    Environment,
    Event,
    InstallRequest,
    Limits,
    LogRecord,
    Member,
    ObjectRef,
    PackageRef,
    Payload,
    Plan,
    SessionInfo,
    SessionSpec,
)


@runtime_checkable
class Store(Protocol):
    """Where packages are kept. Both halves: the client publishes, the host fetches."""

    @property
    def schemes(self) -> Sequence[str]:
        """URL schemes served, lower case: the keys users type."""
        ...

    def publish(self, source: Path, location: str, *, name: str, digest: str, overwrite: bool = False) -> str:
        """Upload a file below a location and return its URL.

        Atomic: an upload that is cut off can never be fetched. When the name stands there with the same digest nothing is
        uploaded; when it stands there with another and ``overwrite`` is false, `StoreError` is raised.

        Args:
            location: URL of a directory or prefix. name: file name below it. digest: SHA-256 of the file, hex.
        """
        ...

    def fetch(self, url: str, target: Path, *, size_limit: int, deadline: float) -> None:
        """Download to a file that does not exist yet.

        Args:
            size_limit: bytes; more is `StoreError`. deadline: seconds for the whole transfer, retries included.

        Raises:
            PackageNotFoundError: nothing stands there. StoreError: anything else; ``target`` is then of no use.
        """
        ...

    def delete(self, url: str) -> None:
        """Remove it; removing what is not there is no error."""
        ...


@runtime_checkable
class Archiver(Protocol):
    """Reads and writes one archive format. It never touches the file system: it yields members and takes members."""

    @property
    def name(self) -> str:
        """The key users type: ``"tar.gz"``."""
        ...

    @property
    def suffixes(self) -> Sequence[str]:
        """File suffixes that announce it, with the dot."""
        ...

    @property
    def magic(self) -> Sequence[tuple[int, bytes]]:
        """``(offset, bytes)`` pairs, one of which must match the file's head."""
        ...

    def write(self, members: Iterable[Member], target: BinaryIO) -> None:
        """Write members in the order given. The same members give the same bytes, on any machine, at any time."""
        ...

    def read(self, source: BinaryIO, limits: Limits) -> Iterator[Member]:
        """Yield the members in order.

        The source is a seekable binary file. The reader enforces the format's own honesty (`ArchiveError` for damage,
        `UnsafeArchiveError` for tricks of the format, `ArchiveLimitError` for header and compressed-size budgets); names, links
        and expanded sizes are judged by the caller.
        """
        ...


@runtime_checkable
class Installer(Protocol):
    """Makes an isolated environment."""

    @property
    def name(self) -> str:
        """The key users type: ``"uv"``."""
        ...

    def identity(self) -> str:
        """Name and version of the tool at work; a part of the environment's key."""
        ...

    def find_python(self, version: str) -> Path:
        """An interpreter of that version (``"3.11"``, ``">=3.10"``), or `InterpreterNotFoundError`."""
        ...

    def install(self, request: InstallRequest) -> Path:
        """Install into ``request.target`` and return the environment's interpreter.

        Raises:
            InstallError: with the log's path and its last lines.
        """
        ...


@runtime_checkable
class Serializer(Protocol):
    """Turns values into bytes and back."""

    @property
    def name(self) -> str:
        """The key users type: ``"cloudpickle"``."""
        ...

    @property
    def version(self) -> int:
        """Major version of the format; the wire says ``name/version``."""
        ...

    @property
    def traits(self) -> frozenset[str]:
        """``"executes-code"``: reading runs code. ``"same-python"``: both sides need the same minor version.
        ``"cross-language"``: only plain data."""
        ...

    @property
    def codec(self) -> str:
        """Importable name of the module that holds ``dumps`` and ``loads`` for workers: standard library and
        ``worker_modules`` only, compatible with every supported Python."""
        ...

    @property
    def worker_modules(self) -> Sequence[str]:
        """Top-level modules the codec needs in a worker (``"cloudpickle"``); offered there behind the application's own."""
        ...

    def dumps(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        """Encode.

        Args:
            buffers: when given, large buffers are appended here and left out of the bytes.
            reference: asked about values that are not plain data; an index means "a reference stands here", to be filled in by
                ``resolve`` on the other side; None means "encode it".

        Raises:
            NotSerializableError: naming the part at fault.
        """
        ...

    def loads(self, data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), resolve: Callable[[int], Any] | None = None) -> Any:
        """Decode what `dumps` wrote."""
        ...


@runtime_checkable
class Cache(Protocol):
    """Keeps objects under keys ``<application>/<session>/<object>``."""

    @property
    def name(self) -> str:
        """The key users type: ``"local"``."""
        ...

    @property
    def schemes(self) -> Sequence[str]:
        """Endpoint schemes it serves."""
        ...

    def open(self, endpoint: str) -> ObjectStore:
        """Connect; an empty endpoint means the provider's default."""
        ...


@runtime_checkable
class ObjectStore(Protocol):
    """An open cache. Objects are immutable per version; versions count from 1."""

    @property
    def endpoint(self) -> str: ...

    def put(self, key: str, payload: Payload) -> ObjectRef:
        """Store under a full key, or under a fresh name when given a two-part prefix."""
        ...

    def get(self, ref: ObjectRef) -> Payload:
        """The payload of exactly that version, or of the newest when ``ref.version`` is 0.

        Raises:
            ObjectNotFoundError: no such key or version.
        """
        ...

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        """Replace; the version grows by one. With ``if_version``, `VersionConflictError` unless that is the current one."""
        ...

    def delete(self, key: str) -> int:
        """Remove a key or everything below a prefix; returns how many objects went. Missing is no error."""
        ...

    def close(self) -> None: ...


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
    def session_id(self) -> str: ...

    def submit(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer] = (), references: Sequence[Payload] = ()) -> None:
        """Queue a call. Never blocks on the worker.

        Args:
            method: method of the execution object, empty to call the object itself.
            data, buffers: the encoded ``(args, kwargs)``.
            references: what the indices written by ``reference`` stand for, in order.
        """
        ...

    def drive(self, task: Task, enough: Callable[[], bool], timeout: float | None = None) -> None:
        """The caller is going to wait until ``enough()``: let its thread do some of the engine's work for this task meanwhile.

        May return before, at once even; the caller then waits in its own way. ``enough`` is called often, and must be quick.
        """
        ...

    def cancel(self, task: Task, *, force: bool = False) -> bool:
        """Take it out of the queue, or ask its worker to raise in it; with force, kill the worker if it does not."""
        ...

    def grant(self, task: Task, taken: int) -> None:
        """The consumer has taken this many of the task's items in all; so much may be said twice, and late, without harm."""
        ...

    def info(self) -> SessionInfo: ...

    def close(self, *, wait: bool = True) -> None:
        """No more calls; waits for those queued, unless told not to, then ends the workers. Closing twice is fine."""
        ...


class Connection(Protocol):
    """A connected engine."""

    @property
    def endpoint(self) -> str: ...

    @property
    def objects(self) -> ObjectStore: ...

    def capabilities(self) -> Capabilities: ...

    def register_application(self, application: Application) -> None: ...

    def update_application(self, application: Application) -> None:
        """Replace a registered application, for sessions opened from now on; those that are open go on as they are."""
        ...

    def unregister_application(self, name: str) -> None: ...

    def get_application(self, name: str) -> Application | None: ...

    def list_applications(self) -> Sequence[Application]: ...

    def open_session(self, spec: SessionSpec) -> Session: ...

    def get_session(self, session_id: str) -> SessionInfo: ...

    def list_sessions(self) -> Sequence[SessionInfo]: ...

    def close_session(self, session_id: str) -> None: ...

    def close(self) -> None:
        """End every session and process; idempotent."""
        ...


class HostServices(Protocol):
    """What a host hands to an engine provider when it connects."""

    @property
    def root(self) -> Path:
        """Where the host keeps environments, trees and working directories."""
        ...

    def capabilities(self) -> Capabilities: ...

    def provision(self, application: Application) -> Lease:
        """Fetch, verify, unpack and install; quick when it was done before. Raises `PackageError` or `ProvisionError`."""
        ...

    def support(self, environment: Environment, plan: Plan) -> Path:
        """A directory with what the plan's codecs, and the client, need in that environment's workers; goes last on their path."""
        ...

    def serializer(self, format: str) -> Serializer: ...

    def cache(self, name: str) -> Cache: ...

    def log(self, record: LogRecord) -> None:
        """Where workers' output goes."""
        ...

    def observe(self, event: Event) -> None: ...


@runtime_checkable
class Engine(Protocol):
    """A way to run sessions."""

    @property
    def name(self) -> str: ...

    @property
    def schemes(self) -> Sequence[str]:
        """Endpoint schemes (``"local"``, ``"http"``): the keys users type."""
        ...

    def connect(self, endpoint: str, services: HostServices) -> Connection: ...


@runtime_checkable
class Observer(Protocol):
    """Receives what happens, in batches, from a background thread; it can neither slow down nor stop a task."""

    @property
    def name(self) -> str: ...

    def observe(self, events: Sequence[Event]) -> None: ...


__all__ = [
    "Archiver", "Cache", "Connection", "Engine", "HostServices", "Installer", "Lease", "ObjectStore", "Observer", "PackageRef",
    "Serializer", "Session", "Store", "Task",
]  # fmt: skip
