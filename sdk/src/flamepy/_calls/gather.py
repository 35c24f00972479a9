"""Waiting for several futures."""

from __future__ import annotations

import concurrent.futures
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from flamepy._calls.future import ObjectFuture
from flamepy._refs import ObjectRef

T = TypeVar("T")


def get_one(one: Any, timeout: float | None) -> Any:
    if isinstance(one, ObjectRef):
        return one.get()
    (future,) = _checked([one])
    return future.get(timeout)


def get_all(several: Iterable[Any], timeout: float | None) -> list[Any]:
    left = _deadline(timeout)
    return [get_one(one, left()) for one in several]


def ref_all(futures: Iterable[ObjectFuture[Any]], timeout: float | None) -> list[ObjectRef]:
    left = _deadline(timeout)
    return [future.ref(left()) for future in _checked(futures)]


def wait_all(futures: Iterable[ObjectFuture[Any]], timeout: float | None) -> bool:
    left = _deadline(timeout)
    return all(future.wait(left()) for future in _checked(futures))


def select(futures: Iterable[ObjectFuture[T]], timeout: float | None) -> Iterator[ObjectFuture[T]]:
    # Not a generator: misuse is told at the call, not at the first item.
    return concurrent.futures.as_completed(_checked(futures), timeout)  # type: ignore[arg-type, return-value]


def _checked(futures: Iterable[ObjectFuture[T]]) -> list[ObjectFuture[T]]:
    given = [futures] if isinstance(futures, ObjectFuture) else list(futures)
    for future in given:
        if not isinstance(future, ObjectFuture):
            raise TypeError(f"expected futures of service calls, not {future!r:.80}")
    return given


def _deadline(timeout: float | None) -> Callable[[], float | None]:
    until = None if timeout is None else time.monotonic() + timeout
    return lambda: None if until is None else max(0.0, until - time.monotonic())
