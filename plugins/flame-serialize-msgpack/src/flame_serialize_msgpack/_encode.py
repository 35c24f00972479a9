"""From Python values to what msgpack knows, refusing what would not come back as it was."""

from __future__ import annotations

import datetime
import decimal
import pathlib
import struct
import sys
import threading
import uuid
from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgpack

from flame_serialize_msgpack import _extensions as ext
from flame_serialize_msgpack._extensions import CannotPack

_ATOMS = frozenset({int, float, str, bool, type(None)})
_only_atoms = _ATOMS.issuperset
_new = tuple.__new__
_local = threading.local()


def _extension(code: int, data: bytes, _kind: Any = msgpack.ExtType) -> Any:
    """An extension value, without the checks of its own constructor, which cost as much as all the rest."""
    return _new(_kind, (code, data))


def pack(value: Any) -> bytes:
    """Write what `Encoder` made."""
    return own_packer()(value)


def own_packer() -> Callable[[Any], bytes]:
    """This thread's packer, kept: making one costs more than packing a call."""
    try:
        return _local.pack  # type: ignore[no-any-return]
    except AttributeError:
        _local.pack = msgpack.Packer(strict_types=True, default=_big_int, use_bin_type=True).pack
        return _local.pack  # type: ignore[no-any-return]


def drop_packer() -> None:
    """After an error half a value may stand in its buffer."""
    _local.__dict__.clear()


def _big_int(value: Any) -> Any:
    """Called by msgpack for the only thing `Encoder` leaves to it: integers beyond 64 bits."""
    return _extension(ext.BIG_INT, value.to_bytes(value.bit_length() // 8 + 1, "big", signed=True))


class Encoder:
    """Turns one value into lists, dicts, atoms and extension values."""

    __slots__ = ("_buffers", "_depth", "_nested", "_reference", "_seen", "pack")

    def __init__(self, buffers: list[Any] | None, reference: Callable[[object], int | None] | None) -> None:
        self._buffers = buffers
        self._reference = reference
        self._seen: dict[int, Any] = {}
        self._depth = 0
        self._nested = 0
        self.pack = own_packer()

    def encode(self, value: Any) -> Any:
        kind = type(value)
        if kind in _ATOMS:
            return value
        encode = _ENCODERS.get(kind)
        if encode is not None:
            return encode(self, value)
        return self._other(value)

    def extension(self, code: int, parts: Any) -> Any:
        return _extension(code, self.pack(self._items(parts)))

    def _items(self, items: Collection[Any]) -> list[Any]:
        found = list(items)
        if len(found) > 8 and _only_atoms(map(type, found)):
            return found
        self._deeper()
        index = 0
        try:
            for index, item in enumerate(found):
                if type(item) not in _ATOMS:
                    found[index] = self.encode(item)
        except CannotPack as error:
            error.path = f"[{index}]{error.path}"
            raise
        self._depth -= 1
        return found

    def _list(self, value: list[Any]) -> Any:
        self._once(value)
        return self._items(value)

    def _tuple(self, value: Collection[Any], code: int = ext.TUPLE) -> Any:
        self._nested += 1
        if self._nested > ext.EXTENSION_DEPTH:
            raise CannotPack(f"is nested more than {ext.EXTENSION_DEPTH} tuples and sets deep", "use lists, or cloudpickle")
        found = _extension(code, self.pack(self._items(value)))
        self._nested -= 1
        return found

    def _dict(self, value: dict[Any, Any]) -> Any:
        self._once(value)
        source = value if _only_atoms(map(type, value)) else self._keys(value)
        found = source
        key: Any = None
        self._deeper()
        try:
            for key, item in source.items():
                if type(item) not in _ATOMS:
                    if found is source:
                        found = dict(source)  # most dicts hold nothing to replace, and are written as they are
                    found[key] = self.encode(item)
        except CannotPack as error:
            original = list(value)[list(source).index(key)]
            error.path = f"[{_short(original)}]{error.path}"
            raise
        self._depth -= 1
        return found

    def _keys(self, value: dict[Any, Any]) -> dict[Any, Any]:
        """The same values under encoded keys."""
        found: dict[Any, Any] = {}
        key: Any = None
        try:
            for key, item in value.items():
                found[self.encode(key)] = item
        except CannotPack as error:
            error.reason += " (it is a key)"
            error.path = f"[{_short(key)}]{error.path}"
            raise
        if len(found) != len(value):
            raise CannotPack("has keys that become one and the same (they hold NaN)")
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
        return _extension(ext.BUFFER, self.pack(self._apart(value)))

    def _bytearray(self, value: bytearray) -> Any:
        self._once(value)
        return _extension(ext.BYTEARRAY, bytes(value))

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
                return _extension(ext.ARRAY, self.pack(_arrays.parts_of(value, None if self._buffers is None else self._apart)))
            if isinstance(value, numpy.generic):
                return _extension(ext.SCALAR, self.pack(_arrays.scalar_parts_of(value)))
        if self._reference is not None and not isinstance(value, type):
            index = self._reference(value)
            if index is not None:
                return _extension(ext.REFERENCE, self.pack(index))
        if "__dataclass_fields__" in type(value).__dict__:
            return self._record(value)
        raise _refusal(value)

    def _record(self, value: Any) -> Any:
        from flame_serialize_msgpack import _records

        module, qualname, fields = _records.written_as(type(value))  # type: ignore[arg-type]  # what metaclass it has, is not known
        self._once(value)
        self._nested += 1
        if self._nested > ext.EXTENSION_DEPTH:
            raise CannotPack(f"is nested more than {ext.EXTENSION_DEPTH} tuples, sets and dataclasses deep", "use lists, or cloudpickle")
        found = {}
        for name, item in _records.contents_of(value, fields).items():
            try:
                found[name] = self.encode(item)
            except CannotPack as error:
                error.path = f".{name}{error.path}"
                raise
        self._nested -= 1
        return _extension(ext.RECORD, self.pack([module, qualname, found]))

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
        return CannotPack(f"is a {name}, a subclass of a dataclass that is none itself", "decorate it, too, or use cloudpickle")
    return CannotPack(f"is a {name}, which is not plain data", "send plain data, or use cloudpickle")


def _datetime(encoder: Encoder, value: datetime.datetime) -> Any:
    fields = [value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond, value.fold]
    return _extension(ext.DATETIME, pack([*fields, _zone(value.tzinfo)]))


def _time(encoder: Encoder, value: datetime.time) -> Any:
    return _extension(ext.TIME, pack([value.hour, value.minute, value.second, value.microsecond, value.fold, _zone(value.tzinfo)]))


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
    return _extension(ext.PATH, pack([type(value).__name__, str(value)]))


_ENCODERS: dict[type, Callable[[Encoder, Any], Any]] = {
    tuple: Encoder._tuple,
    list: Encoder._list,
    dict: Encoder._dict,
    set: Encoder._set,
    frozenset: Encoder._set,
    bytes: Encoder._bytes,
    bytearray: Encoder._bytearray,
    complex: lambda encoder, value: _extension(ext.COMPLEX, struct.pack(">dd", value.real, value.imag)),
    datetime.datetime: _datetime,
    datetime.time: _time,
    datetime.date: lambda encoder, value: _extension(ext.DATE, pack([value.year, value.month, value.day])),
    datetime.timedelta: lambda encoder, value: _extension(ext.TIMEDELTA, pack([value.days, value.seconds, value.microseconds])),
    decimal.Decimal: lambda encoder, value: _extension(ext.DECIMAL, str(value).encode()),
    uuid.UUID: lambda encoder, value: _extension(ext.UUID, value.bytes),
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
