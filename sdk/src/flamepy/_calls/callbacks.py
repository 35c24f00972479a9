"""A thread for the user's code that an engine's threads have to call: done-callbacks, and what finalizers leave to be done.

An engine's thread must not wait, and user code may wait for anything, another future for instance, which only that thread could
bring. Here it may: nothing depends on this thread but what is called in it.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from concurrent.futures._base import LOGGER
from queue import SimpleQueue
from typing import Any


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
