"""Coroutines of the user's code, run on one event loop for the life of the worker. Standard library only, Python 3.8 syntax."""

from __future__ import annotations

from .interruption import Interrupted

TYPE_CHECKING = False
if TYPE_CHECKING:
    import asyncio
    from collections.abc import AsyncIterator, Awaitable, Iterator
    from typing import Any


class Coroutines:
    """``asyncio`` is imported when the first one comes: it takes longer than a worker does to start."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None

    def run(self, awaitable: Awaitable[Any]) -> Any:
        async def run() -> Any:
            return await awaitable

        loop = self._event_loop()
        try:
            return loop.run_until_complete(run())
        except Interrupted:
            _cancel_all(loop)
            raise

    def iterate(self, stream: AsyncIterator[Any]) -> Iterator[Any]:
        """An asynchronous generator as an ordinary one."""
        while True:
            try:
                yield self.run(stream.__anext__())
            except StopAsyncIteration:
                return

    def _event_loop(self) -> asyncio.AbstractEventLoop:
        if self._loop is None or self._loop.is_closed():
            import asyncio

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)
        return self._loop


def _cancel_all(loop: asyncio.AbstractEventLoop) -> None:
    """Give what was interrupted the chance to tidy up; otherwise it would go on within the next task."""
    import asyncio

    tasks = asyncio.all_tasks(loop)
    for task in tasks:
        task.cancel()
    if tasks:
        loop.run_until_complete(asyncio.wait(tasks, timeout=0.5))
