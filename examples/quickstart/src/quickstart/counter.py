"""Something with a state."""

from __future__ import annotations


class Counter:
    """Counts up from an initial value."""

    def __init__(self, initial: int = 0) -> None:
        self._count = initial

    def add(self, a: int) -> int:
        self._count = self._count + a
        return self._count

    def get_counter(self) -> int:
        return self._count


def broken(numbers: list[int]) -> float:
    """Fails the way real code does."""
    return sum(numbers) / len(numbers)
