"""The thread that talks to the cluster: an event loop, in which every call and every watched task is a coroutine."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from flame_host.api import ClosedError

T = TypeVar("T")


class Loop:
    """Starts with the first thing to do."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, name="flame-cluster", daemon=True)
        self._started = False
        self._lock = threading.Lock()
        self.closed = False

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """From any other thread: the result, waiting for it. Ctrl-C ends the wait, and the coroutine."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("the thread that talks to the cluster cannot wait for itself")
        self._start(coroutine)
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        try:
            return future.result()
        except BaseException:
            future.cancel()
            raise

    def soon(self, function: Callable[..., object], *args: object) -> None:
        """Call it in the loop's thread."""
        self._start()
        self._loop.call_soon_threadsafe(function, *args)

    def task(self, coroutine: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """In the loop's thread: go on with it beside everything else."""
        return self._loop.create_task(coroutine)

    def stop(self) -> None:
        """End what is going on. Idempotent."""
        with self._lock:
            if self.closed:
                return
            self.closed = True
        if self._started:
            self._loop.call_soon_threadsafe(self._end)
            self._thread.join(5.0)
        else:
            self._loop.close()

    def _start(self, coroutine: Coroutine[Any, Any, Any] | None = None) -> None:
        if self._started and not self.closed:
            return
        with self._lock:
            if self.closed:
                if coroutine is not None:
                    coroutine.close()
                raise ClosedError("the connection to the cluster is closed")
            if not self._started:
                self._started = True
                self._thread.start()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_forever()
        finally:
            self._loop.close()

    def _end(self) -> None:
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
        self._loop.call_later(0.05, self._loop.stop)
