"""What the journeys call."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any


def add(a: int, b: int = 0) -> int:
    return a + b


def dependency_version() -> str:
    import flametestdep

    return str(flametestdep.VERSION)


def fail(message: str) -> None:
    error = ValueError(message)
    error.code = 42  # type: ignore[attr-defined]
    raise error


def pid() -> int:
    return os.getpid()


def total(values: Any) -> float:
    return float(sum(values))


def read_data() -> str:
    with open("data.txt") as stream:
        return stream.read()


def count(n: int) -> Iterator[int]:
    yield from range(n)


async def later(value: int) -> int:
    return value


class Counter:
    def __init__(self, initial: int = 0) -> None:
        self._count = initial

    def add(self, a: int) -> int:
        self._count = self._count + a
        return self._count

    def get_counter(self) -> int:
        return self._count
