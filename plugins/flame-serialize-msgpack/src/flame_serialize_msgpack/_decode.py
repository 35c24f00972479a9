"""From bytes to Python values. Nothing here imports what a message names."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import struct
import uuid
from collections.abc import Callable, Sequence
from typing import Any

import msgpack

from flame_serialize_msgpack import _extensions as ext
from flame_serialize_msgpack._extensions import CannotUnpack, CodeNotAllowed

_unpackb = msgpack.unpackb


class Decoder:
    """Reads one value."""

    __slots__ = ("_buffers", "_depth", "_failure", "_resolve")

    def __init__(self, buffers: Sequence[memoryview], resolve: Callable[[int], Any] | None) -> None:
        self._buffers = buffers
        self._resolve = resolve
        self._depth = 0
        self._failure: Exception | None = None

    def decode(self, data: bytes | memoryview) -> Any:
        """The value; whatever is wrong with the bytes is one error, since they may come from anywhere."""
        try:
            return self._unpack(data)
        except (CannotUnpack, MemoryError):
            raise
        except Exception as error:
            if error is self._failure:  # the resolver's own, no fault of the bytes
                raise
            raise CannotUnpack(f"these bytes are not msgpack as flame-host writes it: {type(error).__name__}: {error}") from error

    def split_code(self, data: bytes | memoryview) -> tuple[int | None, Any]:
        """The code extension that stands at the top and its parts; None and the value when it is something else."""
        top = self.decode(data) if not _is_code(data) else msgpack.unpackb(data, strict_map_key=False)
        if type(top) is not msgpack.ExtType:
            return None, top
        return top.code, self.decode(top.data)

    def _unpack(self, data: Any) -> Any:
        return _unpackb(data, ext_hook=self._extension, strict_map_key=False, timestamp=3)

    def _extension(self, code: int, data: bytes) -> Any:
        decode = _DECODERS.get(code)
        if decode is None:
            return self._special(code, data)
        self._depth += 1
        if self._depth > ext.EXTENSION_DEPTH + 5:  # dates and paths may stand in the innermost
            raise CannotUnpack("the value is nested too deep")
        found = decode(self._unpack(data)) if code not in _RAW else decode(data)
        self._depth -= 1
        return found

    def _special(self, code: int, data: bytes) -> Any:
        if code == ext.BUFFER:
            return bytes(self._buffer(_unpackb(data)))
        if code == ext.REFERENCE:
            index = _unpackb(data)
            if self._resolve is None:
                raise CannotUnpack(f"the value holds reference {index}, but nothing was given to resolve it")
            try:
                return self._resolve(index)
            except Exception as error:
                self._failure = error
                raise
        if code in (ext.ARRAY, ext.SCALAR):
            from flame_serialize_msgpack import _arrays

            parts = _unpackb(data)
            return _arrays.array_of(parts, self._buffer) if code == ext.ARRAY else _arrays.scalar_of(parts)
        if code in (ext.NAME, ext.INSTANCE):
            raise CodeNotAllowed("a message that may only hold plain data names code; nothing was imported")
        raise CannotUnpack(f"extension type {code} is unknown to this version of the format")

    def _buffer(self, index: Any) -> memoryview:
        if type(index) is not int or not 0 <= index < len(self._buffers):
            raise CannotUnpack(f"buffer {index!r} is missing; {len(self._buffers)} came along")
        return self._buffers[index]


def _is_code(data: Any) -> bool:
    """Whether the outermost value is a code extension, told from its first bytes (fixext 1-16, ext 8/16/32)."""
    view = memoryview(data).cast("B")
    if not view.nbytes:
        return False
    skip = {0xC7: 2, 0xC8: 3, 0xC9: 5}.get(view[0], 1 if 0xD4 <= view[0] <= 0xD8 else 0)
    return bool(skip) and view.nbytes > skip and view[skip] in (ext.NAME, ext.INSTANCE)


def _datetime(parts: Any) -> datetime.datetime:
    *fields, fold, zone = parts
    return datetime.datetime(*fields).replace(tzinfo=_zone(zone), fold=fold)


def _time(parts: Any) -> datetime.time:
    *fields, fold, zone = parts
    return datetime.time(*fields).replace(tzinfo=_zone(zone), fold=fold)


def _zone(zone: Any) -> datetime.tzinfo | None:
    if zone is None:
        return None
    if isinstance(zone, str):
        import zoneinfo

        return zoneinfo.ZoneInfo(zone)
    microseconds, name = zone
    offset = datetime.timedelta(microseconds=microseconds)
    if name is not None:
        return datetime.timezone(offset, name)
    return datetime.timezone(offset) if offset else datetime.timezone.utc


def _path(parts: Any) -> pathlib.PurePath:
    kind, text = parts
    if kind in ("PosixPath", "WindowsPath"):
        # A concrete path is of the reader's own system, when that is the kind it was; else pure, since it names nothing here.
        own: Any = type(pathlib.Path())
        found: pathlib.PurePath = own(text) if own.__name__ == kind else getattr(pathlib, f"Pure{kind}")(text)
        return found
    return {"PurePosixPath": pathlib.PurePosixPath, "PureWindowsPath": pathlib.PureWindowsPath}[kind](text)


def _record(parts: Any) -> Any:
    from flame_serialize_msgpack import _records

    return _records.put_together(*parts)


_RAW = frozenset({ext.BIG_INT, ext.BYTEARRAY, ext.COMPLEX, ext.DECIMAL, ext.UUID})
_DECODERS: dict[int, Callable[[Any], Any]] = {
    ext.TUPLE: tuple,
    ext.SET: set,
    ext.FROZENSET: frozenset,
    ext.BIG_INT: lambda data: int.from_bytes(data, "big", signed=True),
    ext.BYTEARRAY: bytearray,
    ext.COMPLEX: lambda data: complex(*struct.unpack(">dd", data)),
    ext.DATETIME: _datetime,
    ext.DATE: lambda parts: datetime.date(*parts),
    ext.TIME: _time,
    ext.TIMEDELTA: lambda parts: datetime.timedelta(*parts),
    ext.DECIMAL: lambda data: decimal.Decimal(data.decode("ascii")),
    ext.UUID: lambda data: uuid.UUID(bytes=data),
    ext.PATH: _path,
    ext.RECORD: _record,
}
