"""An open cache: versions, not-modified answers, comparing updates, patches."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyarrow
from pyarrow import flight

from flame_cache_flight.location import Location, connect
from flame_cache_flight.rows import batch_of, parts_of_table
from flame_host.api import CacheError, ClosedError, ObjectNotFoundError, ObjectRef, Payload, VersionConflictError
from flame_host.api.keys import parts_of
from flame_host.wire.bson import decode_reference

_SECONDS = 300.0
_KEPT_BYTES = 256 << 20
_COMPARES = "COMPARE_AND_SET"
_CONFLICT = "VERSION_CONFLICT"


class FlightObjects:
    """An `ObjectStore` over one Flight connection. Safe to use from several threads.

    What was read is kept, up to 256 MiB, and the server is asked whether it has changed.
    """

    def __init__(self, location: Location) -> None:
        self.endpoint = location.endpoint
        self._client: Any = connect(location)
        self._closed = False
        self._lock = threading.Lock()
        self._known: OrderedDict[str, tuple[int, Payload]] = OrderedDict()
        self._known_bytes = 0
        self._actions: frozenset[str] | None = None

    # ------------------------------------------------------------------------------------------------ ObjectStore

    def put(self, key: str, payload: Payload) -> ObjectRef:
        parts_of(key, 2, 3)
        return self._write(key, flight.FlightDescriptor.for_path(key), payload)

    def get(self, ref: ObjectRef) -> Payload:
        version, parts = self._read(ref.key)
        if ref.version not in (0, version):
            hint = "" if version > ref.version else "that version was never made, or the cache was emptied since"
            raise ObjectNotFoundError(f"{ref.key} has version {version}; version {ref.version} is not kept", hint=hint)
        if len(parts) > 1:
            raise CacheError(f"{ref.key} has {len(parts) - 1} patches on top of it", hint="read it with parts(), and put them together")
        return parts[0]

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        parts_of(ref.key, 3)
        if if_version is None:
            self._check_there(ref.key)  # a put of an unknown key would make the object
            return self._write(ref.key, flight.FlightDescriptor.for_path(ref.key), payload)
        if _COMPARES not in self._offered():
            raise CacheError(
                f"the cache {self.endpoint} cannot compare versions, so an update with if_version= would not be safe",
                hint="update without it where one program writes, or use a cache that can (flame-host serve)",
            )
        return self._write(ref.key, flight.FlightDescriptor.for_command(f"UPDATE:{if_version}:{ref.key}".encode()), payload)

    def delete(self, key: str) -> int:
        parts = parts_of(key, 2, 3)
        with self._errors(key):
            doomed = self._count(parts)
            results = list(self._usable().do_action(flight.Action("DELETE", key.encode()), _options()))
        self._forget(key)
        answer = results[0].body.to_pybytes().decode() if results else ""
        return int(answer.partition(":")[2]) if ":" in answer else doomed

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._known.clear()
            self._client.close()

    # ------------------------------------------------------------------------------------------------ what only this cache has

    def patch(self, ref: ObjectRef, payload: Payload) -> ObjectRef:
        """Append to an object without sending what it has; the version grows by one.

        Raises:
            CacheError: the payload has buffers apart, or the object was stored with such.
        """
        parts_of(ref.key, 3)
        if payload.buffers or payload.format != "cloudpickle/1":
            raise CacheError("a patch is one pickle without buffers apart", hint="encode it with cloudpickle, buffers=None")
        return self._write(ref.key, flight.FlightDescriptor.for_command(b"PATCH:" + ref.key.encode()), payload)

    def parts(self, ref: ObjectRef) -> list[Payload]:
        """The newest version as the object and its patches, oldest first."""
        return self._read(ref.key)[1]

    # ------------------------------------------------------------------------------------------------ parts

    def _write(self, key: str, descriptor: Any, payload: Payload) -> ObjectRef:
        batch = batch_of(payload)
        with self._errors(key):
            reply = put_batches(self._usable(), descriptor, batch.schema, iter((batch,)))
        self._forget(reply.key)
        return ObjectRef(self.endpoint, reply.key, reply.version, payload.format, payload.size)

    def _read(self, key: str) -> tuple[int, list[Payload]]:
        parts_of(key, 3)
        known = self._known.get(key)
        with self._errors(key):
            table = self._usable().do_get(flight.Ticket(f"{key}:{known[0] if known else 0}".encode()), _options()).read_all()
        version, parts = parts_of_table(table)
        if known is not None and not parts:
            return known[0], [known[1]]
        if known is not None and table.schema.names[:2] == ["version", "kind"] and table.column("kind")[0].as_py() == "patch":
            return version, [known[1], *parts]
        if len(parts) == 1:
            self._keep(key, version, parts[0])
        return version, parts

    def _keep(self, key: str, version: int, payload: Payload) -> None:
        if payload.size > _KEPT_BYTES // 4:
            return
        with self._lock:
            previous = self._known.pop(key, None)
            self._known_bytes += payload.size - (previous[1].size if previous else 0)
            self._known[key] = (version, payload)
            while self._known_bytes > _KEPT_BYTES:
                self._known_bytes -= self._known.popitem(last=False)[1][1].size

    def _forget(self, key: str) -> None:
        with self._lock:
            for name in [name for name in self._known if name == key or name.startswith(f"{key.removesuffix('*').rstrip('/')}/")]:
                self._known_bytes -= self._known.pop(name)[1].size

    def _check_there(self, key: str) -> None:
        """Ask for it and take nothing: a server may well have information on what it has not.

        Raises:
            ObjectNotFoundError: it is not there.
        """
        with self._errors(key):
            self._usable().do_get(flight.Ticket(f"{key}:0".encode()), _options()).cancel()

    def _count(self, parts: list[str]) -> int:
        """How many objects a key or prefix means, for servers that do not say it themselves.

        Flame's own neither says it nor lists its objects in a way that Arrow's client reads; of a prefix it is then 0.
        """
        if len(parts) == 3:
            try:
                self._check_there("/".join(parts))
            except ObjectNotFoundError:
                return 0
            return 1
        prefix = f"{parts[0]}/" if parts[1] == "*" else f"{parts[0]}/{parts[1]}/"
        try:
            return sum(name.startswith(prefix) for name in self._names())
        except pyarrow.ArrowInvalid:
            return 0

    def _names(self) -> Iterator[str]:
        for info in self._usable().list_flights(options=_options()):
            yield info.descriptor.path[0].decode()

    def _offered(self) -> frozenset[str]:
        if self._actions is None:
            with self._errors(""):
                self._actions = frozenset(action.type for action in self._usable().list_actions(_options()))
        return self._actions

    def _usable(self) -> Any:
        if self._closed:
            raise ClosedError(f"the cache {self.endpoint} was closed")
        return self._client

    @contextmanager
    def _errors(self, key: str) -> Iterator[None]:
        with told(self.endpoint, key):
            yield


def put_batches(client: Any, descriptor: Any, schema: Any, batches: Iterator[Any]) -> ObjectRef:
    """Send, and return the reference the server made."""
    writer, reader = client.do_put(descriptor, schema, _options())
    with writer:
        for batch in batches:
            writer.write_batch(batch)
        writer.done_writing()
        reply = reader.read()
    if reply is None:
        raise CacheError("the cache took an object and did not say where it stands")
    return decode_reference(reply.to_pybytes())


@contextmanager
def told(endpoint: str, key: str) -> Iterator[None]:
    """Errors of Arrow's as ours."""
    try:
        yield
    except KeyError as error:
        if isinstance(error, ObjectNotFoundError):
            raise
        raise ObjectNotFoundError(
            f"there is no object {key} in {endpoint}", hint="it was deleted or evicted, or its session was closed"
        ) from error
    except flight.FlightUnavailableError as error:
        raise CacheError(
            f"the cache {endpoint} cannot be reached: {_text(error)}", hint="check the endpoint, and that the cache is running"
        ) from error
    except (flight.FlightError, pyarrow.ArrowException, OSError) as error:
        text = _text(error)
        if _CONFLICT in text:
            raise VersionConflictError(f"{key}: {text}", hint="get it again and repeat the change") from error
        if "not found" in text.lower() and key:
            raise ObjectNotFoundError(f"there is no object {key} in {endpoint}: {text}") from error
        raise CacheError(f"the cache {endpoint} refused {key or 'the question'}: {text}") from error


def _text(error: BaseException) -> str:
    """What was said, without the layers it came through."""
    return str(error).partition(". gRPC client debug context")[0].partition(" Client context:")[0][:2000]


def _options() -> Any:
    return flight.FlightCallOptions(timeout=_SECONDS)
