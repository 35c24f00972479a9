"""From Python values to what msgpack knows, refusing what would not come back as it was."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import struct
import sys
import threading
import uuid
from collections.abc import Callable, Iterable
from typing import Any

import msgpack  # type: ignore[import-untyped]

from flame_serialize_msgpack import _extensions as ext
from flame_serialize_msgpack._extensions import BadText, CannotPack

_ATOMS = frozenset({int, float, str, bool, type(None)})
_only_atoms = _ATOMS.issuperset
_Ext = msgpack.ExtType
_local = threading.local()


def pack(value: Any) -> bytes:
    """Write what `Encoder` made. The packer is kept: making one costs more than packing a call."""
    try:
        packer = _local.packer
    except AttributeError:
        packer = _local.packer = msgpack.Packer(strict_types=True, default=_big_int, use_bin_type=True)
    try:
        return packer.pack(value)  # type: ignore[no-any-return]
    except UnicodeEncodeError as error:
        _local.__dict__.clear()
        raise BadText("is text that is not valid Unicode (a lone surrogate)", "send it as bytes") from error
    except BaseException:
        _local.__dict__.clear()  # half a value may stand in its buffer
        raise


def _big_int(value: Any) -> Any:
    """Called by msgpack for the only thing `Encoder` leaves to it: integers beyond 64 bits."""
    return _Ext(ext.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


class Encoder:
    """Turns one value into lists, dicts, atoms and extension values."""

    __slots__ = ("_buffers", "_depth", "_nested", "_reference", "_seen")

    def __init__(self, buffers: list[Any] | None, reference: Callable[[object], int | None] | None) -> None:
        self._buffers = buffers
        self._reference = reference
        self._seen: dict[int, Any] = {}
        self._depth = 0
        self._nested = 0

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(self, value)
        return self._other(value)

    def extension(self, code: int, parts: Any) -> Any:
        return _Ext(code, pack(self._items(parts)))

    def _items(self, items: Iterable[Any]) -> list[Any]:
        if _only_atoms(map(type, items)):
            return list(items)
        self._deeper()
        found = []
        index = 0
        try:
            for item in items:
                found.append(item if type(item) in _ATOMS else self.encode(item))
                index += 1
        except CannotPack as error:
            error.path = f"[{index}]{error.path}"
            raise
        self._depth -= 1
        return found

    def _list(self, value: list[Any]) -> Any:
        self._once(value)
        return self._items(value)

    def _tuple(self, value: Iterable[Any], code: int = ext.TUPLE) -> Any:
        self._nested += 1
        if self._nested > ext.EXTENSION_DEPTH:
            raise CannotPack(f"is nested more than {ext.EXTENSION_DEPTH} tuples and sets deep", "use lists, or cloudpickle")
        found = _Ext(code, pack(self._items(value)))
        self._nested -= 1
        return found

    def _dict(self, value: dict[Any, Any]) -> Any:
        self._once(value)
        if not value or (_only_atoms(map(type, value)) and _only_atoms(map(type, value.values()))):
            return value
        self._deeper()
        found: dict[Any, Any] = {}
        for key, item in value.items():
            try:
                new_key = self.encode(key)
            except CannotPack as error:
                error.reason += " (it is a key)"
                error.path = f"[{_short(key)}]{error.path}"
                raise
            try:
                found[new_key] = item if type(item) in _ATOMS else self.encode(item)
            except CannotPack as error:
                error.path = f"[{_short(key)}]{error.path}"
                raise
        if len(found) != len(value):
            raise CannotPack("has keys that become one and the same (they hold NaN)")
        self._depth -= 1
        return found

    def _set(self, value: set[Any] | frozenset[Any]) -> Any:
        if type(value) is set:
            self._once(value)
        try:
            return self._tuple(value, ext.SET if type(value) is set else ext.FROZENSET)
        except CannotPack as error:
            error.path = ""  # elements of a set have no path
            error.reason = f"has an element that {error.reason}"
            raise

    def _bytes(self, value: bytes) -> Any:
        if self._buffers is None or len(value) < ext.BIG:
            return value
        return _Ext(ext.BUFFER, pack(self._apart(value)))

    def _bytearray(self, value: bytearray) -> Any:
        self._once(value)
        return _Ext(ext.BYTEARRAY, bytes(value))

    def _apart(self, buffer: Any) -> int:
        """Leave a buffer out of the bytes and return its index."""
        assert self._buffers is not None
        self._buffers.append(buffer)
        return len(self._buffers) - 1

    def _other(self, value: Any) -> Any:
        """Arrays, references, and everything there is no way for."""
        numpy = sys.modules.get("numpy")
        if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
            from flame_serialize_msgpack import _arrays

            if type(value) is numpy.ndarray:
                self._once(value)
                return _Ext(ext.ARRAY, pack(_arrays.parts_of(value, None if self._buffers is None else self._apart)))
            if isinstance(value, numpy.generic):
                return _Ext(ext.SCALAR, pack(_arrays.scalar_parts_of(value)))
        if self._reference is not None and not isinstance(value, type):
            index = self._reference(value)
            if index is not None:
                return _Ext(ext.REFERENCE, pack(index))
        raise _refusal(value)

    def _once(self, value: Any) -> None:
        """Refuse a mutable value that stands in two places, or within itself: the copies would not know of each other."""
        if id(value) in self._seen:
            raise CannotPack("stands in more than one place, and would arrive as separate copies", "send a copy.deepcopy of the second")
        self._seen[id(value)] = value  # kept, so that its id is not given to another

    def _deeper(self) -> None:
        self._depth += 1
        if self._depth > ext.DEPTH:
            raise CannotPack(f"is nested more than {ext.DEPTH} deep", "flatten it, or use cloudpickle")


def _refusal(value: Any) -> CannotPack:
    kind = type(value)
    name = f"{kind.__module__}.{kind.__qualname__}"
    for plain in (str, int, float, bytes, bytearray, list, dict, tuple, set, frozenset):
        if isinstance(value, plain):
            how = f"{plain.__name__}(x)" if not hasattr(value, "value") else "its .value"
            return CannotPack(f"is a {name} and would arrive as a plain {plain.__name__}", f"send {how}, or use cloudpickle")
    if isinstance(value, type) or callable(value):
        return CannotPack(f"is code ({name}), which msgpack does not carry in arguments or results", "use cloudpickle")
    if hasattr(kind, "__dataclass_fields__"):
        return CannotPack(f"is a {name}, which is not plain data", "send dataclasses.asdict(x), or use cloudpickle")
    return CannotPack(f"is a {name}, which is not plain data", "send plain data, or use cloudpickle")


def _datetime(encoder: Encoder, value: datetime.datetime) -> Any:
    fields = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold]
    return _Ext(ext.DATETIME, pack([*fields, _zone(value.tzinfo)]))


def _time(encoder: Encoder, value: datetime.time) -> Any:
    return _Ext(ext.TIME, pack([value.hour, value.minute, value.second, value.microsecond, value.fold, _zone(value.tzinfo)]))


def _zone(zone: datetime.tzinfo | None) -> Any:
    """Nothing, microseconds east of UTC with the name if it has one, or an IANA key."""
    if zone is None:
        return None
    if type(zone) is datetime.timezone:
        offset = zone.utcoffset(None)
        named = len(zone.__getinitargs__()) > 1  # type: ignore[attr-defined]
        return [offset // datetime.timedelta(microseconds=1), zone.tzname(None) if named else None]
    key = getattr(zone, "key", None)
    if type(zone).__module__.startswith("zoneinfo") and type(key) is str:
        return key
    raise CannotPack(f"has a time zone of type {type(zone).__qualname__}", "use zoneinfo.ZoneInfo or datetime.timezone")


def _path(encoder: Encoder, value: pathlib.PurePath) -> Any:
    return _Ext(ext.PATH, pack([type(value).__name__, str(value)]))


_ENCODERS: dict[type, Callable[[Encoder, Any], Any]] = {
    tuple: Encoder._tuple,
    list: Encoder._list,
    dict: Encoder._dict,
    set: Encoder._set,
    frozenset: Encoder._set,
    bytes: Encoder._bytes,
    bytearray: Encoder._bytearray,
    complex: lambda encoder, value: _Ext(ext.COMPLEX, struct.pack(">dd", value.real, value.imag)),
    datetime.datetime: _datetime,
    datetime.time: _time,
    datetime.date: lambda encoder, value: _Ext(ext.DATE, pack([value.year, value.month, value.day])),
    datetime.timedelta: lambda encoder, value: _Ext(ext.TIMEDELTA, pack([value.days, value.seconds, value.microseconds])),
    decimal.Decimal: lambda encoder, value: _Ext(ext.DECIMAL, str(value).encode()),
    uuid.UUID: lambda encoder, value: _Ext(ext.UUID, value.bytes),
    pathlib.PosixPath: _path,
    pathlib.WindowsPath: _path,
    pathlib.PurePosixPath: _path,
    pathlib.PureWindowsPath: _path,
}


def find_bad_text(value: Any) -> str:
    """Path of the first string that cannot be encoded; empty when it stands where no path leads."""
    if type(value) is dict:
        items: Iterable[tuple[str, Any]] = ((f"[{_short(key)}]", part) for key, item in value.items() for part in (key, item))
    elif type(value) in (list, tuple):
        items = ((f"[{index}]", item) for index, item in enumerate(value))
    else:
        return ""
    for step, item in items:
        if type(item) is str and item != item.encode("utf-8", "ignore").decode():
            return step
        below = find_bad_text(item)
        if below:
            return step + below
    return ""


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."
