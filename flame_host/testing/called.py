"""What the engine contract calls. Standard library only: an engine's workers may have an environment of their own, without pytest."""

from __future__ import annotations

from collections.abc import Iterator


def add(a: int, b: int = 0) -> int:
    return a + b


def fail() -> None:
    raise ValueError("on purpose")


def items(count: int) -> Iterator[int]:
    yield from range(count)


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count
