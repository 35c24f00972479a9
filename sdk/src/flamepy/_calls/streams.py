"""Items of a generator that runs elsewhere."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from flame_host.api import Buffer, buffer_view
from flamepy._calls.callbacks import at_once, callback_thread

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture

_GRANT = 16
"""Items taken before the worker is told; well below the window engines give."""
_ALL = 1 << 62


class Stream:
    """The items of one future, in the hands of a consumer.

    Each item is taken once, also where several iterate. When the last of them is gone before the end (``break``), the task is
    cancelled, as a generator is closed that nobody holds any more: nobody would take the rest, and its worker would wait for ever.
    """

    def __init__(self, items: Items) -> None:
        self.items = items
        items.consumers.append(None)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self.items.next()

    def __del__(self) -> None:
        self.items.leave()


class Items:
    """What has arrived and was not taken yet.

    Attributes:
        consumers: one entry for each; a list, for its pop takes no lock, and finalizers call it.
    """

    def __init__(self, future: ObjectFuture[Any]) -> None:
        self._future = future
        self._arrived: deque[tuple[bytes, Sequence[Buffer]]] = deque()
        self._counting = threading.Lock()
        self._taken = self._granted = 0
        self.consumers: list[None] = []

    def leave(self) -> None:
        self.consumers.pop()
        if not self.consumers and not self._future.done():
            callback_thread.call(self._cancel_if_left)

    def _cancel_if_left(self) -> None:
        if not self.consumers:
            self._future.cancel()

    def append(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        self._arrived.append((data, buffers))

    def say_again(self) -> None:
        if self._granted:
            self._future._bound().session.grant(self._future, self._granted)

    def let_all_come(self) -> None:
        """Whoever waits for the end waits for all of them."""
        with self._counting:
            self._granted = _ALL
        self._future._bound().session.grant(self._future, _ALL)

    def next(self) -> Any:
        while True:
            try:
                return self.take()
            except IndexError:
                self._future._wait_until(self.answers, None)
                if self.over():
                    self.raise_failure()
                    raise StopIteration from None

    def answers(self) -> bool:
        """Whether there is an item, or the end."""
        return bool(self._arrived) or self._future.done()

    def over(self) -> bool:
        """Whether nothing more will come; the last item comes before the end does."""
        return self._future.done() and not self._arrived

    def take(self) -> Any:
        """The next item; IndexError when none is there."""
        data, buffers = self._arrived.popleft()
        handle = self._future._bound()
        with self._counting:
            self._taken += 1
            grants = self._taken >= self._granted + _GRANT
            if grants:
                self._granted = self._taken
        if grants:
            handle.session.grant(self._future, self._granted)
        return handle.decode(data, [buffer_view(buffer) for buffer in buffers])

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
    stream = iter(await future)
    if not isinstance(stream, Stream):
        for item in stream:
            yield item
        return
    items = stream.items
    while True:
        try:
            item = items.take()
        except IndexError:
            if items.over():
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
