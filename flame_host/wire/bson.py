"""BSON of one document: the object reference ``{endpoint, key, version}`` that older clients read and write.

Only what that document needs; https://bsonspec.org names the element types.
"""

from __future__ import annotations

import struct

from flame_host.api import ObjectRef, SerializationError

_INT32 = struct.Struct("<i")
_INT64 = struct.Struct("<q")
_STRING_TYPE, _INT32_TYPE, _INT64_TYPE = 0x02, 0x10, 0x12
_SMALLEST = 5  # bytes of an empty document: its length and the final zero
_INT32_MAX = (1 << 31) - 1


def is_document(data: bytes) -> bool:
    """Whether the bytes carry the marks of a BSON document: they begin with their own length and end in zero."""
    return len(data) >= _SMALLEST and data[-1] == 0 and _INT32.unpack_from(data)[0] == len(data)


def encode_reference(ref: ObjectRef) -> bytes:
    """The reference as older clients expect it: format and digest do not travel, the cache knows them."""
    wide = ref.version > _INT32_MAX
    elements = _string("endpoint", ref.endpoint) + _string("key", ref.key)
    elements += bytes([_INT64_TYPE if wide else _INT32_TYPE]) + b"version\0" + (_INT64 if wide else _INT32).pack(ref.version)
    return _INT32.pack(len(elements) + _SMALLEST) + elements + b"\0"


def decode_reference(data: bytes) -> ObjectRef:
    """Read such a document.

    Raises:
        SerializationError: it is damaged, or another document.
    """
    fields = _elements(data)
    endpoint, key, version = fields.get("endpoint"), fields.get("key"), fields.get("version", 0)
    if not isinstance(endpoint, str) or not isinstance(key, str) or not isinstance(version, int):
        raise SerializationError(
            f"a BSON document with {', '.join(fields) or 'no fields'} is no object reference; one has endpoint, key and version"
        )
    return ObjectRef(endpoint, key, version)


def _string(name: str, value: str) -> bytes:
    content = value.encode()
    return bytes([_STRING_TYPE]) + name.encode() + b"\0" + _INT32.pack(len(content) + 1) + content + b"\0"


def _elements(data: bytes) -> dict[str, str | int]:
    if not is_document(data):
        raise SerializationError("damaged BSON document: its length is not the one it gives")
    fields: dict[str, str | int] = {}
    offset = _INT32.size
    try:
        while data[offset]:
            end = data.index(0, offset + 1)
            name = data[offset + 1 : end].decode()
            fields[name], offset = _value(data[offset], name, data, end + 1)
        if offset != len(data) - 1:
            raise ValueError("it ends early")
    except (ValueError, IndexError, struct.error) as error:
        raise SerializationError(f"damaged BSON document: {error}") from error
    return fields


def _value(kind: int, name: str, data: bytes, offset: int) -> tuple[str | int, int]:
    if kind == _INT32_TYPE:
        return _INT32.unpack_from(data, offset)[0], offset + 4
    if kind == _INT64_TYPE:
        return _INT64.unpack_from(data, offset)[0], offset + 8
    if kind != _STRING_TYPE:
        raise ValueError(f"field {name!r} has type 0x{kind:02x}, which no object reference has")
    length = _INT32.unpack_from(data, offset)[0]
    stop = offset + 4 + length
    if length < 1 or stop > len(data) - 1 or data[stop - 1]:
        raise ValueError(f"the text of field {name!r} runs over the end")
    return data[offset + 4 : stop - 1].decode(), stop
