"""Offers the server's own format to the host it makes; no entry point: it is of no use to anybody else."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from flame_host.api import Buffer, Serializer, hookimpl
from flame_host.serve import frames


class Frames:
    """See `frames`."""

    name = frames.FORMAT.partition("/")[0]
    version = 1
    traits: frozenset[str] = frozenset({"cross-language"})
    codec = frames.__name__
    worker_modules = ("flame_host",)

    def dumps(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        return frames.dumps(value)

    def loads(self, data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), resolve: Callable[[int], Any] | None = None) -> Any:
        return frames.loads(data)

    def dumps_code(
        self, value: object, *, buffers: list[Buffer] | None = None, reference: Callable[[object], int | None] | None = None
    ) -> bytes:
        return frames.dumps(value)

    def loads_code(
        self, data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), allow: Callable[[str], bool] | None = None
    ) -> Any:
        return frames.loads(data)

    def by_value(self, modules: Iterable[str]) -> AbstractContextManager[None]:
        return nullcontext()


@hookimpl
def flame_serializers() -> Iterable[Serializer]:
    return [Frames()]
