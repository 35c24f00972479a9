"""Objects as Arrow sees them.

A cluster's own clients store one row of ``version, data`` whose bytes begin with four that tell what they are, or a table of the
user's. A pickle without buffers is stored in their way, so that they can read it. Anything else of ours is a table of one row with a
column for each part: neither side copies the parts, and the server keeps them as they are.
"""

from __future__ import annotations

import pickle
import struct
from typing import Any

import pyarrow

from flame_host.api import Buffer, CacheError, Payload, buffer_view

PICKLED = "cloudpickle/1"
_FORMAT, _VERSION, _KIND, _PAYLOAD = (
    b"flame.cache.format",
    b"flame.cache.version",
    b"flame.cache.logical_type",
    b"flame-host.payload-format",
)
_TABLE, _OURS = b"arrow-table-v1", b"flame-host.payload"
_PICKLE, _TENSOR, _STREAM, _ARRAY, _BATCH = (b"FLM\x00", b"FLM\x01", b"FLM\x02", b"FLM\x03", b"FLM\x04")
_ROWS = pyarrow.schema([("version", pyarrow.uint64()), ("data", pyarrow.binary())])
_SMALL = (1 << 31) - 1


def batch_of(payload: Payload) -> Any:
    """One record batch, which uses the payload's memory."""
    if payload.format == PICKLED and not payload.buffers and payload.size < _SMALL:
        return row_of(_PICKLE + payload.data)
    names = [f"part{index}" for index in range(1 + len(payload.buffers))]
    arrays = [_one(buffer_view(part)) for part in (payload.data, *payload.buffers)]
    marks = {_FORMAT: _TABLE, _VERSION: b"0", _KIND: _OURS, _PAYLOAD: payload.format.encode()}
    schema = pyarrow.schema([pyarrow.field(name, array.type, nullable=False) for name, array in zip(names, arrays, strict=True)], marks)
    return pyarrow.RecordBatch.from_arrays(arrays, schema=schema)


def row_of(data: bytes | memoryview) -> Any:
    """Bytes as a cluster's own clients store them."""
    return pyarrow.RecordBatch.from_arrays([pyarrow.array([0], pyarrow.uint64()), pyarrow.array([data], pyarrow.binary())], schema=_ROWS)


def _one(view: memoryview) -> Any:
    """An array of one value, over the memory of it."""
    view = view if view.nbytes == 0 else view.cast("B")
    small = view.nbytes <= _SMALL
    offsets = pyarrow.py_buffer(struct.pack("<2i" if small else "<2q", 0, view.nbytes))
    return pyarrow.Array.from_buffers(pyarrow.binary() if small else pyarrow.large_binary(), 1, [None, offsets, pyarrow.py_buffer(view)])


def parts_of_table(table: Any) -> tuple[int, list[Payload]]:
    """Version, and the object with whatever was appended to it since; no payload at all says that it is not modified."""
    marks = table.schema.metadata or {}
    if marks.get(_FORMAT) == _TABLE:
        return int(marks.get(_VERSION, b"0")), [_ours(table, marks) if marks.get(_KIND) == _OURS else _table(table, marks)]
    columns = table.schema.names
    if "data" not in columns or "version" not in columns:
        raise CacheError(f"the cache answered with columns {columns}, which is no object")
    if table.num_rows == 0:
        return 0, []
    table = table.combine_chunks() if table.num_rows > 1 else table
    versions = table.column("version").to_pylist()
    return versions[-1], [_tagged(value) for value in _values(table.column("data"))]


def raw_of_table(table: Any) -> bytes:
    """The bytes of a file that was uploaded."""
    if (table.schema.metadata or {}).get(_FORMAT) == _TABLE or "data" not in table.schema.names:
        raise CacheError("what stands there is a table, and no file")
    return b"".join(_values(table.column("data")))


def _values(column: Any) -> list[memoryview]:
    """The memory of each value, uncopied."""
    return [memoryview(value.as_buffer()) for chunk in column.chunks for value in chunk]


def _ours(table: Any, marks: dict[bytes, bytes]) -> Payload:
    parts = [memoryview(column.chunk(0)[0].as_buffer()).toreadonly() for column in table.columns]
    return Payload(marks[_PAYLOAD].decode(), bytes(parts[0]), tuple(parts[1:]))


def _table(table: Any, marks: dict[bytes, bytes]) -> Payload:
    """A table that somebody stored as such, in the kind it had."""
    own = {key: value for key, value in marks.items() if not key.startswith(b"flame.cache.")}
    table = table.replace_schema_metadata(own or None)
    kind = marks.get(_KIND, b"").decode()
    if kind == "pyarrow.record_batch":
        batches = table.combine_chunks().to_batches()
        return _pickled(batches[0] if batches else pyarrow.RecordBatch.from_pylist([], schema=table.schema))
    if kind == "pandas.dataframe":
        return _pickled(table.to_pandas())
    return _pickled(table)


def _tagged(data: memoryview) -> Payload:
    tag, body = bytes(data[:4]), data[4:]
    if tag == _PICKLE:
        return Payload(PICKLED, bytes(body))
    if tag == _TENSOR:
        return _pickled(pyarrow.ipc.read_tensor(pyarrow.py_buffer(body)).to_numpy())
    if tag in (_STREAM, _ARRAY, _BATCH):
        table = pyarrow.ipc.open_stream(pyarrow.py_buffer(body)).read_all()
        if tag == _STREAM:
            return _pickled(table)
        return _pickled(table.column(0).combine_chunks() if tag == _ARRAY else table.combine_chunks().to_batches()[0])
    return Payload(PICKLED, bytes(data))  # of a time before tags


def _pickled(value: Any) -> Payload:
    """For readers of pickles; the value's memory stays where it is."""
    buffers: list[Buffer] = []
    data = pickle.dumps(value, 5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
    return Payload(PICKLED, data, tuple(view.toreadonly() if isinstance(view, memoryview) else view for view in buffers))
