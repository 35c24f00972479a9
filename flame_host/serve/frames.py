"""What travels between the server and its workers: a few byte strings. Nothing of it is ever unpickled by the server.

Workers run this module, too: standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

FORMAT = "frames/1"
_COUNT = struct.Struct("<B")
_LENGTH = struct.Struct("<q")
_NONE = -1


def join(parts: Sequence[bytes | None]) -> bytes:
    """Byte strings, or None in their places, as one."""
    pieces = [_COUNT.pack(len(parts))]
    for part in parts:
        pieces.append(_LENGTH.pack(_NONE if part is None else len(part)))
        if part is not None:
            pieces.append(part)
    return b"".join(pieces)


def split(data: bytes | memoryview) -> tuple[bytes | None, ...]:
    """Undo `join`. Raises ValueError for anything else: a worker is not trusted to have used it."""
    view = memoryview(data)
    parts: list[bytes | None] = []
    try:
        (count,) = _COUNT.unpack_from(view)
        at = _COUNT.size
        for _ in range(count):
            (length,) = _LENGTH.unpack_from(view, at)
            at += _LENGTH.size
            if length == _NONE:
                parts.append(None)
                continue
            if length < 0 or at + length > len(view):
                raise ValueError("a part is longer than the whole")
            parts.append(bytes(view[at : at + length]))
            at += length
    except struct.error as error:
        raise ValueError("it ends in the middle of a part") from error
    if at != len(view):
        raise ValueError("more bytes than its parts have")
    return tuple(parts)


def dumps(value: Any, *, buffers: list[Any] | None = None, reference: Callable[[object], int | None] | None = None) -> bytes:
    """A call's ``(parts, {})``, or a result: a tuple of parts."""
    if type(value) is tuple and len(value) == 2 and type(value[1]) is dict:
        value = value[0]
    if type(value) is not tuple or not all(part is None or type(part) is bytes for part in value):
        raise TypeError("only byte strings travel between a server and its workers")
    return join(value)


def loads(data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), resolve: Callable[[int], Any] | None = None) -> Any:
    """A call, as a worker takes it."""
    return split(data), {}
