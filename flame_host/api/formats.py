"""What a provider of a format has: stores, archivers, installers, serializers, caches.

A provider is an object with the attributes and methods below; nothing need be inherited. It must be cheap to make (heavy imports
belong in its methods), safe to use from several threads, and keep no state of one application that another could see. Errors a
provider raises come from `flame_host.api.errors`; anything else is wrapped at the edge with the provider's name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, Protocol, runtime_checkable

from flame_host.api.buffers import Buffer, ObjectRef, Payload
from flame_host.api.packages import InstallRequest, Limits, Member

__all__ = ["Archiver", "Cache", "Installer", "ObjectStore", "Serializer", "Store"]


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

        Raises:
            StoreError: refused, broken off, or another file has the name.
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
        """Remove it; removing what is not there is no error.

        Raises:
            StoreError: it stands there and cannot be removed.
        """
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
    """Turns values into bytes and back; and code, which a session's workers load once and call from then on.

    Code is the object a session is about: a function, a class, an instance. A format that ``executes-code`` sends it as any other value.
    One that does not names it by its import path, and only `loads_code` may import anything.
    """

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
        """Importable name of the module that holds ``dumps``, ``loads`` and, where it differs from that, ``loads_code`` for workers:
        standard library and ``worker_modules`` only, compatible with every supported Python."""
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
        """Decode what `dumps` wrote. Arrays made from ``buffers`` are read-only views of them.

        Args:
            resolve: gives the value for an index that ``reference`` gave.

        Raises:
            SerializationError: the bytes are none of this format, or name what is not to be had here.
        """
        ...

    def dumps_code(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        """Encode code; anything else as `dumps` does, with the same arguments.

        Raises:
            NotSerializableError: naming the part at fault; a function that cannot be imported, for a format that names it by its path.
        """
        ...

    def loads_code(
        self, data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), allow: Callable[[str], bool] | None = None
    ) -> Any:
        """Decode what `dumps_code` wrote. It is the reader's own: arrays can be changed where ``buffers`` can be written to.

        Args:
            allow: asked for the name of each module before it is imported. A format that ``executes-code`` cannot keep to an answer,
                and refuses the question.

        Raises:
            FormatNotAllowedError: ``allow`` said no, or cannot be kept to. SerializationError: as for `loads`.
        """
        ...

    def by_value(self, modules: Iterable[str]) -> AbstractContextManager[None]:
        """Within the block, functions and classes of these imported modules are written whole: for modules the worker cannot import.

        A format that writes no code has nothing to do here.
        """
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
        """Connect; an empty endpoint means the provider's default.

        Raises:
            ConfigError: it is no endpoint of this cache. CacheError: nothing answers there, or there is no default.
        """
        ...


@runtime_checkable
class ObjectStore(Protocol):
    """An open cache. Objects are immutable per version; versions count from 1.

    Any method may raise `CacheError`, when the cache does not answer or has no room.
    """

    @property
    def endpoint(self) -> str:
        """Where it stands; what `Cache.open` takes, and the references it gives say."""
        ...

    def put(self, key: str, payload: Payload) -> ObjectRef:
        """Store under a full key, or under a fresh name when given a two-part prefix.

        Raises:
            ConfigError: the key has other than two or three parts.
        """
        ...

    def get(self, ref: ObjectRef) -> Payload:
        """The payload of exactly that version, or of the newest when ``ref.version`` is 0.

        Raises:
            ObjectNotFoundError: no such key or version.
        """
        ...

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        """Replace; the version grows by one.

        Args:
            if_version: only when that is the current version.

        Raises:
            ObjectNotFoundError: there is nothing to replace. VersionConflictError: ``if_version`` is not the current one.
        """
        ...

    def delete(self, key: str) -> int:
        """Remove a key or everything below a prefix; returns how many objects went. Missing is no error."""
        ...

    def close(self) -> None:
        """Let go of connections and mappings; the objects stay. Closing twice is fine."""
        ...
