"""Done-callbacks: of which kinds they are, and which thread calls them.

The thread is for the user's code that an engine's threads have to call: done-callbacks, and what finalizers leave to be done.

An engine's thread must not wait, and user code may wait for anything, another future for instance, which only that thread could
bring. Here it may: nothing depends on this thread but what is called in it.
"""

from __future__ import annotations

import contextlib
import contextvars
import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures._base import LOGGER
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


class Called(Protocol):
    """What callbacks are of."""

    def call_back(self, callback: Callable[[Any], object]) -> None:
        """Call it with this, and log what it raises."""
        ...


class CallbackThread:
    """Calls functions one after the other, in the order they came; the thread is made when there is something to call."""

    def __init__(self) -> None:
        self._queue: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]]] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._making = threading.Lock()

    def call(self, function: Callable[..., object], *args: Any) -> None:
        """Also from a finalizer, in the middle of anything: takes no lock."""
        self._queue.put((function, args))
        if self._thread is None and self._making.acquire(blocking=False):  # for good: whoever does not get it, need not
            thread = threading.Thread(target=self._run, name="flame-callbacks", daemon=True)
            try:
                thread.start()
            except BaseException:
                self._making.release()
                raise
            self._thread = thread

    def flush(self) -> None:
        """Wait until all that has been ordered so far has been called."""
        if self._thread is None or threading.current_thread() is self._thread:
            return
        done = threading.Event()
        self.call(done.set)
        done.wait()

    def _run(self) -> None:
        while True:
            function, args = self._queue.get()
            try:
                function(*args)
            except BaseException:
                LOGGER.exception("exception calling callback %r", function)
            del function, args  # not kept until the next one comes


callback_thread = CallbackThread()


def _reset() -> None:
    """In a forked child there is no such thread, and what it had to do is the parent's."""
    callback_thread.__init__()  # type: ignore[misc]


os.register_at_fork(after_in_child=_reset)


def running_loop() -> AbstractEventLoop | None:
    """The event loop that this thread is in; asyncio is not imported for it."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def one_after_another(calls: Sequence[tuple[Called, Callable[[Any], object]]]) -> None:
    """Call back; what that settles in turn comes after it, not within it: a chain may be as long as it likes."""
    waiting = getattr(_under_way, "waiting", None)
    if waiting is not None:
        waiting.extend(calls)
        return
    waiting = _under_way.waiting = deque(calls)
    try:
        while waiting:
            future, callback = waiting.popleft()
            future.call_back(callback)
    finally:
        _under_way.waiting = None


_under_way = threading.local()


class at_once:
    """Marks a callback of ours: it is quick, waits for nothing, and may run in an engine's thread."""

    __slots__ = ("function",)

    def __init__(self, function: Callable[[Any], object]) -> None:
        self.function = function

    def __call__(self, future: Any) -> None:
        self.function(future)


class LoopCallback:
    """A callback to be called by an event loop, with the context of whoever added it."""

    __slots__ = ("_context", "_loop", "function")

    def __init__(self, function: Callable[[Any], object], loop: AbstractEventLoop) -> None:
        self.function = function
        self._loop = loop
        self._context = contextvars.copy_context()

    def __call__(self, future: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            self._loop.call_soon_threadsafe(self.function, future, context=self._context)
