"""The Runner and its relatives, under the names of the proposals."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, TypeVar

from flamepy._calls.future import ObjectFuture
from flamepy._calls.service import RunnerService
from flamepy._refs import ObjectRef
from flamepy._runner.runner import Runner

__all__ = ["FlameAsyncRunner", "FlameRunner", "FlameRunnerService", "ObjectExpr", "ObjectFuture", "ObjectRef", "Runner", "RunnerService"]

T = TypeVar("T")


class ObjectExpr(ObjectFuture[T]):
    """What a call of a `FlameAsyncRunner` gives: awaiting it gives it back, done, and ``get`` then has the value at hand."""

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, ObjectExpr[T]]:  # type: ignore[override]
        yield from super().__await__()
        return self


class FlameRunnerService(RunnerService[..., Any]):
    """A service of `FlameRunner`."""


class _AsyncService(FlameRunnerService):
    _future_class = ObjectExpr


class FlameRunner(Runner):
    """`Runner` under the name of the first proposal."""

    _service_class = FlameRunnerService


class FlameAsyncRunner(Runner):
    """A Runner whose calls are awaited: ``res = await svc(1, 2); res.get()``. Works in ``async with`` and in ``with``."""

    _service_class = _AsyncService
