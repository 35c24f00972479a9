"""One background thread for everything that is not the task path: workers' output, their ends, timers, scaling."""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import selectors
import threading
import time
from collections.abc import Callable
from typing import Protocol

_TICK = 0.01  # seconds between looks at a busy session
_log = logging.getLogger(__name__)


class Watched(Protocol):
    def tick(self, now: float) -> bool:
        """Look after things; False when there is nothing to look after any more."""
        ...


class Supervisor:
    """Sleeps until a descriptor is readable or a timer is due; ticks only while something is watched."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._selector.register(self._wake_read, selectors.EVENT_READ, None)
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._orders: list[Callable[[], None]] = []
        self._watched: set[Watched] = set()
        self._numbers = itertools.count()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, name="flame-supervisor", daemon=True)
        self._thread.start()

    def read(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back whenever the descriptor is readable, until `forget`."""

        def register() -> None:
            with contextlib.suppress(ValueError, OSError):  # closed before its turn came
                self._selector.register(fd, selectors.EVENT_READ, callback)

        self._order(register)

    def forget(self, fd: int) -> None:
        """From the supervisor's own thread only."""
        with contextlib.suppress(KeyError, ValueError):
            self._selector.unregister(fd)

    def watch(self, session: Watched) -> None:
        self._order(lambda: self._watched.add(session))

    def later(self, delay: float, callback: Callable[[], None]) -> None:
        due = time.monotonic() + delay
        self._order(lambda: heapq.heappush(self._timers, (due, next(self._numbers), callback)))

    def call(self, callback: Callable[[], None]) -> None:
        """In the supervisor's thread, soon."""
        self._order(callback)

    def stop(self) -> None:
        """Ends the thread; callbacks not yet called never are."""
        self._stopped = True
        self._wake()
        if threading.current_thread() is not self._thread:
            self._thread.join()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _order(self, order: Callable[[], None]) -> None:
        self._orders.append(order)
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(BlockingIOError, OSError):
            os.write(self._wake_write, b"!")

    def _run(self) -> None:
        while not self._stopped:
            for key, _ in self._selector.select(self._patience()):
                if key.data is None:
                    os.read(self._wake_read, 4096)
                else:
                    self._guarded(key.data)
            while self._orders:
                self._guarded(self._orders.pop(0))
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._guarded(heapq.heappop(self._timers)[2])
            for session in [session for session in self._watched if not self._tick(session, now)]:
                self._watched.discard(session)

    def _patience(self) -> float | None:
        if self._watched:
            return _TICK
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    @staticmethod
    def _tick(session: Watched, now: float) -> bool:
        try:
            return session.tick(now)
        except Exception:
            _log.exception("looking after %r failed", session)
            return True

    @staticmethod
    def _guarded(callback: Callable[[], object]) -> None:
        try:
            callback()
        except Exception:
            _log.exception("a callback of the supervisor failed")
