"""A cache server by the rules of Flame's, in memory, which can compare versions as well."""

from __future__ import annotations

import threading
import uuid
from typing import Any

import pyarrow
from pyarrow import flight

from flame_host.api import ObjectRef
from flame_host.wire import bson

_ROWS = pyarrow.schema([("version", pyarrow.uint64()), ("kind", pyarrow.string()), ("data", pyarrow.binary())])


class FlightServer(flight.FlightServerBase):  # type: ignore[misc]  # pyarrow has no types
    """Attributes:
    full: answers that carried an object, in place of "not modified". compares: whether it offers to compare versions.
    """

    def __init__(self, *, compares: bool = True) -> None:
        super().__init__("grpc://127.0.0.1:0")
        self.compares = compares
        self.full = 0
        self._objects: dict[str, list[tuple[int, Any]]] = {}
        self._guard = threading.Lock()

    @property
    def endpoint(self) -> str:
        return f"grpc://127.0.0.1:{self.port}"

    def do_put(self, context: Any, descriptor: Any, reader: Any, writer: Any) -> None:
        table = reader.read_all()
        command = descriptor.command.decode() if descriptor.command else ""
        with self._guard:
            if command.startswith("PATCH:"):
                key = command.partition(":")[2]
                self._objects[key].append((self._objects[key][-1][0] + 1, table))
            elif command.startswith("UPDATE:"):
                _, expected, key = command.split(":", 2)
                current = self._objects[key][-1][0]
                if current != int(expected):
                    raise flight.FlightServerError(f"VERSION_CONFLICT: it has version {current}, not {expected}")
                self._objects[key] = [(current + 1, table)]
            else:
                key = descriptor.path[0].decode()
                key = key if key.count("/") == 2 else f"{key}/{uuid.uuid4()}"
                current = self._objects[key][-1][0] if key in self._objects else 0
                self._objects[key] = [(current + 1, table)]
            version = self._objects[key][-1][0]
        writer.write(pyarrow.py_buffer(bson.encode_reference(ObjectRef(self.endpoint, key, version))))

    def do_get(self, context: Any, ticket: Any) -> Any:
        key, _, known = ticket.ticket.decode().rpartition(":")
        with self._guard:
            parts = list(self._objects[key])
        if int(known) == parts[-1][0]:
            return flight.RecordBatchStream(pyarrow.Table.from_batches([], _ROWS))
        self.full += 1
        marks = parts[0][1].schema.metadata or {}
        if marks.get(b"flame.cache.format"):
            return flight.RecordBatchStream(
                parts[0][1].replace_schema_metadata({**marks, b"flame.cache.version": str(parts[0][0]).encode()})
            )
        newer = [part for part in parts if int(known) and part[0] > int(known)]
        told = newer if int(known) >= parts[0][0] else parts
        kinds = ["patch" if part is not parts[0] else "base" for part in told]
        data = [b"".join(part[1].column("data").to_pylist()) for part in told]
        return flight.RecordBatchStream(pyarrow.table([[part[0] for part in told], kinds, data], schema=_ROWS))

    def get_flight_info(self, context: Any, descriptor: Any) -> Any:
        self._objects[descriptor.path[0].decode()]
        return self._told(descriptor.path[0].decode())

    def list_flights(self, context: Any, criteria: bytes) -> Any:
        return iter([self._told(key) for key in list(self._objects)])

    def _told(self, key: str) -> Any:
        return flight.FlightInfo(_ROWS, flight.FlightDescriptor.for_path(key), [], -1, -1)

    def list_actions(self, context: Any) -> Any:
        return [("DELETE", "")] + ([("COMPARE_AND_SET", "")] if self.compares else [])

    def do_action(self, context: Any, action: Any) -> Any:
        key = action.body.to_pybytes().decode()
        prefix = key.removesuffix("*") if key.endswith("/*") else f"{key}/"
        with self._guard:
            doomed = [name for name in self._objects if name == key or name.startswith(prefix)]
            for name in doomed:
                del self._objects[name]
        return [f"OK:{len(doomed)}".encode()]
