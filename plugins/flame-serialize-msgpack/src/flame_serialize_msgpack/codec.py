"""MessagePack with extension types, so that what arrives is of the type that was sent: the half of the format that workers run.

``msgpack`` and the standard library only; it must not import ``flame_host``, which workers do not have.

Two doors. `dumps` and `loads` carry plain data and can never import anything. `dumps_code` and `loads_code` are for the one object
a session is about: at the top, and only there, a function, a class or an instance may stand, by import path. Who reads a task's
arguments or results uses `loads`, so that no such message can name code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from flame_serialize_msgpack._decode import Decoder
from flame_serialize_msgpack._encode import Encoder, drop_packer, find_bad_text
from flame_serialize_msgpack._extensions import CannotPack, CannotUnpack

__all__ = ["CannotPack", "CannotUnpack", "dumps", "dumps_code", "loads", "loads_code"]


def dumps(value: Any, *, buffers: list[Any] | None = None, reference: Callable[[object], int | None] | None = None) -> bytes:
    """Encode; see ``Serializer.dumps``. Raises `CannotPack` and then leaves ``buffers`` as they were."""
    return _encode(value, value, buffers, reference, "")


def loads(data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), resolve: Callable[[int], Any] | None = None) -> Any:
    """Decode; see ``Serializer.loads``. Arrays made from ``buffers`` are read-only views of them. Raises `CannotUnpack`."""
    return Decoder(buffers, resolve).decode(data)


def dumps_code(value: Any, *, buffers: list[Any] | None = None, reference: Callable[[object], int | None] | None = None) -> bytes:
    """Encode the object a session is about: a function, class or instance by import path; anything else as `dumps` does."""
    from flame_serialize_msgpack._code import is_code, taken_apart

    if not is_code(value):
        return dumps(value, buffers=buffers, reference=reference)
    try:
        code, parts = taken_apart(value)
    except CannotPack as error:
        error.path = getattr(value, "__qualname__", "self")
        raise
    return _encode(value, parts, buffers, reference, "self", code)


def loads_code(
    data: bytes | memoryview,
    *,
    buffers: Sequence[memoryview] = (),
    resolve: Callable[[int], Any] | None = None,
    allow: Callable[[str], bool] | None = None,
) -> Any:
    """Decode what `dumps_code` wrote. Imports the module named at the top, unless ``allow`` says no to its name."""
    from flame_serialize_msgpack._code import put_together

    decoder = Decoder(buffers, resolve)
    code, parts = decoder.split_code(data)
    return parts if code is None else put_together(code, parts, allow)


def _encode(value: Any, parts: Any, buffers: list[Any] | None, reference: Any, root: str, code: int | None = None) -> bytes:
    start = len(buffers) if buffers is not None else 0
    try:
        encoder = Encoder(buffers, reference)
        return encoder.pack(encoder.encode(parts) if code is None else encoder.extension(code, parts))
    except BaseException as error:
        drop_packer()
        if buffers is not None:
            del buffers[start:]
        if isinstance(error, UnicodeEncodeError):
            reason = "is text that is not valid Unicode (a lone surrogate)"
            raise CannotPack(reason, "send it as bytes", _rooted(find_bad_text(parts), value, root)) from error
        if isinstance(error, CannotPack):
            error.path = _rooted(error.path, value, root)
        raise


def _rooted(path: str, value: Any, root: str) -> str:
    """Name the value the path begins at: the two halves of a call, the object a session is about, or just the value."""
    if root:
        return root + path.removeprefix("[2]")
    if type(value) is tuple and len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict:
        for index, name in (("[0]", "args"), ("[1]", "kwargs")):
            if path.startswith(index):
                return name + path[len(index) :]
    return f"value{path}" if path else "value"
