"""The serializer provider ``msgpack``: the codec with the project's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib import import_module
from types import ModuleType
from typing import Any

from flame_host.api import Buffer, FormatNotAllowedError, NotSerializableError, SerializationError


class MsgpackSerializer:
    """Writes plain data, any language can read it, and reading it runs nothing; code goes by its import path."""

    name = "msgpack"
    version = 1
    traits = frozenset({"cross-language"})
    codec = "flame_serialize_msgpack.codec"
    worker_modules = ("msgpack", "flame_serialize_msgpack")

    def dumps(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        try:
            return _codec().dumps(value, buffers=buffers, reference=reference)  # type: ignore[no-any-return]
        except (TypeError, ValueError) as error:
            translated = _translated(error)
            if translated is None:
                raise
            raise translated from error

    def loads(self, data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), resolve: Callable[[int], Any] | None = None) -> Any:
        try:
            return _codec().loads(data, buffers=buffers, resolve=resolve)
        except (TypeError, ValueError) as error:
            translated = _translated(error)
            if translated is None:
                raise
            raise translated from error

    def dumps_code(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        """Encode the object a session is about: a function, class or instance goes by import path."""
        try:
            return _codec().dumps_code(value, buffers=buffers, reference=reference)  # type: ignore[no-any-return]
        except (TypeError, ValueError) as error:
            translated = _translated(error)
            if translated is None:
                raise
            raise translated from error

    def loads_code(
        self,
        data: bytes | memoryview,
        *,
        buffers: Sequence[memoryview] = (),
        resolve: Callable[[int], Any] | None = None,
        allow: Callable[[str], bool] | None = None,
    ) -> Any:
        """Decode it. This imports what the bytes name: only for a session's own object, never for arguments or results."""
        try:
            return _codec().loads_code(data, buffers=buffers, resolve=resolve, allow=allow)
        except (TypeError, ValueError) as error:
            translated = _translated(error)
            if translated is None:
                raise
            raise translated from error

    def by_value(self, modules: Iterable[str]) -> AbstractContextManager[None]:
        """Does nothing: no module is ever written here, only named."""
        return nullcontext()


@cache
def _codec() -> ModuleType:
    """Imported when the first value passes: a program that negotiates another format never loads msgpack."""
    return import_module(MsgpackSerializer.codec)


def _translated(error: Exception) -> Exception | None:
    """The project's error for one of the codec's, None for any other."""
    from flame_serialize_msgpack import _extensions

    if isinstance(error, _extensions.CannotPack):
        return NotSerializableError(str(error), path=error.path, hint=error.hint)
    if isinstance(error, _extensions.CodeNotAllowed):
        return FormatNotAllowedError(str(error), hint="code travels only as the object a session is about")
    if isinstance(error, _extensions.CannotUnpack):
        return SerializationError(str(error))
    return None
