"""Items of a generator that runs elsewhere."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flame_host.api import Buffer, buffer_view

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture

_GRANT = 16
"""Items taken before the worker is told; well below the window engines give."""
_ALL = 1 << 62


class Items:
    """What has arrived and was not taken yet. Each item is taken once; several consumers share them."""

    def __init__(self, future: ObjectFuture[Any]) -> None:
        self._future = future
        self._arrived: deque[tuple[bytes, Sequence[Buffer]]] = deque()
        self._counting = threading.Lock()
        self._taken = self._granted = 0

    def append(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        self._arrived.append((data, buffers))

    def let_all_come(self) -> None:
        """Whoever waits for the end waits for all of them."""
        with self._counting:
            self._granted = _ALL
        self._future._bound().session.grant(self._future, _ALL)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        while True:
            try:
                return self.take()
            except IndexError:
                self._future._wait_until(self.answers, None)
                if not self._arrived and self._future.done():
                    self.raise_failure()
                    raise StopIteration from None

    def answers(self) -> bool:
        """Whether there is an item, or the end: the last item comes before that."""
        return bool(self._arrived) or self._future.done()

    def take(self) -> Any:
        """The next item; IndexError when none is there."""
        data, buffers = self._arrived.popleft()
        source = self._future._bound()
        with self._counting:
            self._taken += 1
            grants = self._taken >= self._granted + _GRANT
            if grants:
                self._granted = self._taken
        if grants:
            source.session.grant(self._future, self._granted)
        return source.decode(data, [buffer_view(buffer) for buffer in buffers])

    def raise_failure(self) -> None:
        """At the end: the exception that ended the generator, if one did."""
        error = self._future.exception()
        if error is not None:
            raise error


def items_of(future: ObjectFuture[Any]) -> Iterator[Any]:
    """The items of a future whose task is a generator; of any other, the items of its value."""
    value = future.get()
    try:
        return iter(value)
    except TypeError:
        raise TypeError(f"the task gave a {type(value).__name__}, which cannot be iterated; use .get()") from None


async def async_items_of(future: ObjectFuture[Any]) -> AsyncIterator[Any]:
    """No thread waits meanwhile: however many streams a program reads, each goes on."""
    items = iter(await future)
    if not isinstance(items, Items):
        for item in items:
            yield item
        return
    while True:
        try:
            item = items.take()
        except IndexError:
            if future.done() and not items._arrived:
                items.raise_failure()
                return
            await until(future, items.answers)
        else:
            yield item


async def until(future: ObjectFuture[Any], ready: Callable[[], bool]) -> None:
    """Wait, in the running event loop, until something has come that makes it ready."""
    import asyncio

    loop = asyncio.get_running_loop()
    woken = asyncio.Event()

    def wake(_: object) -> None:
        try:
            loop.call_soon_threadsafe(woken.set)
        except RuntimeError:  # the loop is closed: nobody waits any more
            pass

    from flamepy._calls.future import at_once

    watchers = future._rare().setdefault("watchers", [])
    watchers.append(wake)
    callback = at_once(wake)
    future.when_done(callback)
    try:
        # Looked at after asking to be told, so that nothing comes in between unseen.
        while not ready():
            woken.clear()
            if not ready():
                await woken.wait()
    finally:
        watchers.remove(wake)
        future.remove_done_callback(wake)
