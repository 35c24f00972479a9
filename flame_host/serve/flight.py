"""The object cache's endpoint: Arrow Flight over `objects`. The only module here that imports pyarrow.

Two shapes of an object come over the wire: rows of ``version, data`` whose bytes are the client's business, and tables of the client's
own schema, marked in its metadata.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator
from typing import Any

import pyarrow
from pyarrow import flight

from flame_host.api import CacheError, FlameError, ObjectNotFoundError, ObjectRef, VersionConflictError
from flame_host.serve.objects import BadKeyError, Objects, Stored
from flame_host.wire import bson

_PATCH, _UPDATE = b"PATCH:", b"UPDATE:"
_FORMAT, _VERSION = b"flame.cache.format", b"flame.cache.version"
_TABLE = b"arrow-table-v1"
_ROWS = pyarrow.schema([("version", pyarrow.uint64()), ("kind", pyarrow.string()), ("data", pyarrow.binary())])


class CacheService(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Serves from its own threads as soon as it is made.

    Args:
        location: ``grpc://host:port`` or ``grpc+tls://host:port``; port 0 lets the system choose, see ``port``.
        tls: certificate chain and key in PEM, for ``grpc+tls``. token: what callers must present, empty for none.
    """

    def __init__(self, objects: Objects, location: str, *, tls: tuple[bytes, bytes] | None = None, token: str = "") -> None:
        self._objects = objects
        more: dict[str, Any] = {"tls_certificates": [tls]} if tls else {}
        if token:
            more["middleware"] = {"token": _Tokens(token)}
        super().__init__(location, **more)

    # ------------------------------------------------------------------------------------------------ writing

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        with_errors(lambda: self._put(descriptor, reader, writer))

    def _put(self, descriptor: Any, reader: Any, writer: Any) -> None:
        if descriptor.descriptor_type == flight.DescriptorType.CMD:
            stored = self._command(descriptor.command, reader)
        else:
            (key,) = _path(descriptor)
            stored = self._objects.put(key, **_whole(reader))
        reference = ObjectRef(self._objects.endpoint, stored.key, stored.version)
        writer.write(pyarrow.py_buffer(bson.encode_reference(reference)))

    def _command(self, command: bytes, reader: Any) -> Stored:
        if command.startswith(_PATCH):
            return self._objects.patch(command[len(_PATCH) :].decode(), _content(reader))
        version, colon, key = command.removeprefix(_UPDATE).partition(b":")
        if command.startswith(_UPDATE) and colon and version.isdigit():
            return self._objects.put(key.decode(), **_whole(reader), if_version=int(version))
        raise BadKeyError(f"command {command[:100]!r} is none; PATCH:<key> and UPDATE:<version>:<key> are")

    # ------------------------------------------------------------------------------------------------ reading

    def do_get(self, context: Any, ticket: Any) -> Any:
        return with_errors(lambda: self._get(ticket.ticket.decode()))

    def _get(self, ticket: str) -> Any:
        key, colon, known = ticket.rpartition(":")
        if not colon or not known.isdigit():
            raise BadKeyError(f"ticket {ticket!r:.200} is none; <key>:<version> is")
        stored = self._objects.get(key)
        if stored.arrow:
            return flight.GeneratorStream(*_table_of(stored))
        return flight.RecordBatchStream(pyarrow.Table.from_batches([_rows(stored, int(known))], _ROWS))

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        return with_errors(lambda: self._info(*_path(descriptor)))

    def _info(self, key: str) -> Any:
        stored = self._objects.get(key)
        schema = _table_of(stored)[0] if stored.arrow else _ROWS
        endpoint = flight.FlightEndpoint(f"{key}:0", [self._objects.endpoint])
        return flight.FlightInfo(schema, flight.FlightDescriptor.for_path(key), [endpoint], -1, stored.size)

    def list_flights(self, context: Any, criteria: bytes) -> Iterator[Any]:
        for key, _, size in self._objects.listing():
            endpoint = flight.FlightEndpoint(f"{key}:0", [self._objects.endpoint])
            yield flight.FlightInfo(_ROWS, flight.FlightDescriptor.for_path(key), [endpoint], -1, size)

    # ------------------------------------------------------------------------------------------------ actions

    def list_actions(self, context: Any) -> list[Any]:
        return [
            flight.ActionType("DELETE", "Delete an object, the objects of a session, or of an application (<application>/*)."),
            flight.ActionType("COMPARE_AND_SET", "Not called: says that a put of the command UPDATE:<version>:<key> is understood."),
        ]

    def do_action(self, context: Any, action: Any) -> list[Any]:
        if action.type != "DELETE":
            raise flight.FlightServerError(f"unknown action {action.type!r:.100}; DELETE is known")
        count = with_errors(lambda: self._objects.delete(action.body.to_pybytes().decode()))
        return [flight.Result(b"OK:%d" % count)]


def with_errors(work: Callable[[], Any]) -> Any:
    """Ours as the status a client understands."""
    try:
        return work()
    except ObjectNotFoundError as error:
        raise KeyError(str(error)) from error  # which Arrow tells as NOT_FOUND
    except VersionConflictError as error:
        raise flight.FlightServerError(f"VERSION_CONFLICT {error}") from error
    except (BadKeyError, UnicodeDecodeError) as error:
        raise pyarrow.ArrowInvalid(str(error)) from error
    except FlameError as error:
        raise flight.FlightServerError(str(error)) from error


# ---------------------------------------------------------------------------------------------------- contents


def _path(descriptor: Any) -> tuple[str]:
    if descriptor.descriptor_type != flight.DescriptorType.PATH or len(descriptor.path) != 1:
        raise BadKeyError("an object is named by a path of one element, its key")
    return (descriptor.path[0].decode(),)


def _whole(reader: Any) -> dict[str, Any]:
    """What a put stores."""
    return {"data": _stream_of(reader), "arrow": True} if _is_table(reader.schema) else {"data": _content(reader)}


def _content(reader: Any) -> bytes:
    """The data of all rows, one after another: a file comes in pieces."""
    at = reader.schema.get_field_index("data")
    if at < 0 or reader.schema.field(at).type != pyarrow.binary():
        raise CacheError(f"an object has a column 'data' of bytes, or the mark of a table; this one has {reader.schema.names}")
    pieces = [piece.as_py() for chunk in reader for piece in chunk.data.column(at)]
    if not pieces:
        raise CacheError("no data came")
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _is_table(schema: Any) -> bool:
    return (schema.metadata or {}).get(_FORMAT) == _TABLE


def _stream_of(reader: Any) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.ipc.new_stream(sink, reader.schema) as out:
        for chunk in reader:
            out.write_batch(chunk.data)
    return bytes(sink.getvalue().to_pybytes())


def _table_of(stored: Stored) -> tuple[Any, Iterator[Any]]:
    """Schema with the version in it, and the batches."""
    reader = pyarrow.ipc.open_stream(stored.data)
    schema = reader.schema.with_metadata({**reader.schema.metadata, _VERSION: str(stored.version).encode()})
    return schema, (batch.replace_schema_metadata(schema.metadata) for batch in reader)


def _rows(stored: Stored, known: int) -> Any:
    """What somebody who knows a version needs: nothing, the patches since, or all."""
    rows: list[tuple[int, str, bytes]] = []
    if known != stored.version:
        if known == 0 or known < stored.base or known > stored.version:
            rows.append((stored.base, "base", stored.data))
        rows += [(version, "patch", data) for version, data in stored.patches if rows or version > known]
    columns = list(zip(*rows, strict=True)) or [(), (), ()]
    arrays = [pyarrow.array(column, field.type) for column, field in zip(columns, _ROWS, strict=True)]
    return pyarrow.RecordBatch.from_arrays(arrays, schema=_ROWS)


class _Tokens(flight.ServerMiddlewareFactory):  # type: ignore[misc]
    """Refuses whoever does not present the token."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()

    def start_call(self, info: Any, headers: dict[str, list[str]]) -> None:
        given = next(iter(headers.get("authorization", [])), "")
        if not hmac.compare_digest(str(given).encode(), self._wanted):
            raise flight.FlightUnauthenticatedError("this server wants a token: authorization: Bearer …")
