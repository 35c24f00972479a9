"""The serializer provider ``cloudpickle``: the codec with the project's errors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from flame_host.api import Buffer, FlameError, FormatNotAllowedError, NotSerializableError, SerializationError
from flame_serialize_cloudpickle import codec

_HINTS = (
    (("_thread.", "threading.", "multiprocessing."), "make it where it is used, or leave it out in __getstate__"),
    (("_io.", "socket.", "ssl.", "sqlite3.", "select."), "send the path or address and open it in the worker"),
    (("builtins.generator", "builtins.coroutine", "builtins.async_generator"), "send a list of its items, or the function that makes it"),
)


class CloudpickleSerializer:
    """Writes nearly any Python object; reading runs code, and needs the same minor version of Python on both sides."""

    name = "cloudpickle"
    version = 1
    traits = frozenset({"executes-code", "same-python"})
    codec = "flame_serialize_cloudpickle.codec"
    worker_modules = ("cloudpickle", "flame_serialize_cloudpickle")

    def dumps(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        try:
            return codec.dumps(value, buffers=buffers, reference=reference)
        except codec.CannotPickle as error:
            raise NotSerializableError(str(error), path=error.path, hint=_hint(error.type_name)) from error.__cause__

    def loads(self, data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), resolve: Callable[[int], Any] | None = None) -> Any:
        return self._read(codec.loads, data, buffers=buffers, resolve=resolve)

    def dumps_code(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        """Code is a value like any other here."""
        return self.dumps(value, buffers=buffers, reference=reference)

    def loads_code(
        self, data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), allow: Callable[[str], bool] | None = None
    ) -> Any:
        """An execution object, whose arrays can be changed where ``buffers`` can be written to."""
        if allow is not None:
            raise FormatNotAllowedError("a pickle imports what it likes", hint='use msgpack: serializers = ["msgpack"]')
        return self._read(codec.loads_code, data, buffers=buffers)

    @staticmethod
    def _read(read: Callable[..., Any], data: bytes | memoryview, **how: Any) -> Any:
        try:
            return read(data, **how)
        except FlameError:  # of the resolver
            raise
        except (Exception, SystemExit) as error:  # a pickle may do anything, also exit
            hint = "install it on this side, or send plain data" if isinstance(error, ImportError) else ""
            raise SerializationError(f"cannot read a pickle: {type(error).__name__}: {error}", hint=hint) from error

    def by_value(self, modules: Iterable[str]) -> AbstractContextManager[None]:
        """Within the block, functions and classes of these modules travel by value: for modules the worker cannot import."""
        return codec.by_value(modules)


def _hint(type_name: str) -> str:
    return next((hint for prefixes, hint in _HINTS if type_name.startswith(prefixes)), "")
