"""Generators: items go out as they come, no more than a window ahead of the consumer. Standard library only, Python 3.8 syntax."""

from __future__ import annotations

import threading

from .channel import ITEM, OPEN_STREAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Any

    from .interruption import RunningTask
    from .replies import Replies

_WINDOW = 64
"""Items of a generator sent ahead of what the client has taken."""


class Credit:
    """How many of a stream's items the consumer has taken. Given by the control thread, awaited by the task's."""

    def __init__(self) -> None:
        self._given = (0, 0)
        self.renew_lock()

    def renew_lock(self) -> None:
        self._news = threading.Lock()
        self._news.acquire()

    def give(self, number: int, taken: int) -> None:
        """What the host says holds whenever it comes: a number of all items, not of more. So none is lost, and none counts twice."""
        self._given = (number, taken)
        try:
            self._news.release()
        except RuntimeError:  # it is awake already
            pass

    def taken(self, number: int) -> int:
        """How many of its items the consumer has taken, as far as is known here."""
        of, taken = self._given
        return taken if of == number else 0

    def wait(self) -> None:
        # Woken by the control thread. The time is no part of the protocol: it is for replies that a child thread has left.
        self._news.acquire(timeout=0.2)


def send_items(
    generator: Iterator[Any],
    number: int,
    dumped: Callable[[Any], tuple[bytes, Sequence[object]]],
    replies: Replies,
    task: RunningTask,
    credit: Credit,
) -> Any:
    """Send what the generator gives; returns what it returns."""
    replies.add(OPEN_STREAM, number, b"")  # goes out with the first item, or with the result
    sent = 0
    while True:
        try:
            item = next(generator)
        except StopIteration as stop:
            return stop.value
        while sent >= credit.taken(number) + _WINDOW:
            task.undisturbed(replies.flush)
            credit.wait()
        data, buffers = dumped(item)
        task.undisturbed(replies.send_parts, ITEM, number, data, buffers)
        sent += 1
