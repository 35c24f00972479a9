"""Items of a generator that runs elsewhere."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flame_host.api import Buffer, buffer_view

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture

_GRANT = 16
"""Items taken before the worker is told that it may send as many more; well below the window engines give."""


class Items:
    """What has arrived and was not taken yet. Each item is taken once; several consumers share them."""

    def __init__(self, future: ObjectFuture[Any]) -> None:
        self._future = future
        self._arrived: deque[tuple[bytes, Sequence[Buffer]]] = deque()
        self._taken = 0

    def append(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        self._arrived.append((data, buffers))
        condition = self._future._lazy_condition
        if condition is not None:
            with condition:
                condition.notify_all()

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                data, buffers = self._arrived.popleft()
            except IndexError:
                if self._wait():
                    continue
                self._end()
            self._taken += 1
            source = self._future._bound()
            if self._taken >= _GRANT and not self._future.done():
                source.session.grant(self._future, self._taken)
                self._taken = 0
            return source.decode(data, [buffer_view(buffer) for buffer in buffers])

    def _wait(self) -> bool:
        """Until there is an item; False when there will be no more."""
        condition = self._future._condition
        with condition:
            condition.wait_for(lambda: self._arrived or self._future.done())
        return bool(self._arrived)

    def _end(self) -> None:
        error = self._future.exception()
        if error is not None:
            raise error
        raise StopIteration


def items_of(future: ObjectFuture[Any]) -> Iterator[Any]:
    """The items of a future whose task is a generator; of any other, the items of its value."""
    value = future.get()
    try:
        return iter(value)
    except TypeError:
        raise TypeError(f"the task gave a {type(value).__name__}, which cannot be iterated; use .get()") from None


async def async_items_of(future: ObjectFuture[Any]) -> AsyncIterator[Any]:
    items = items_of(future) if future.done() else await asyncio.to_thread(items_of, future)
    end = object()
    while (item := await asyncio.to_thread(next, items, end)) is not end:
        yield item
