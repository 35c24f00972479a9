"""A background thread that waits for descriptors, timers and orders, and calls back.

A connection has two. ``io`` belongs to the task path: it reads what no waiting caller reads, and sends on what a socket did not take
at once; none of its callbacks ever blocks. The supervisor has everything else: workers' output (which may end in a user's logging
handler, that blocks when it pleases), their ends, time limits, scaling.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import logging
import os
import select
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from typing import Protocol

_TICK = 0.01  # seconds between looks at a busy session
_log = logging.getLogger(__name__)


class Watched(Protocol):
    def tick(self, now: float) -> bool:
        """Look after things; False when there is nothing to look after any more."""
        ...


class Loop:
    """Sleeps until a descriptor is ready, a timer is due or an order comes; ticks only while something is watched.

    Every method may be called from any thread; callbacks run in the loop's own, one at a time. An exception of a callback is logged
    and ends nothing else.
    """

    def __init__(self, name: str) -> None:
        self._readers = select.epoll()
        # Those that wait to write have a set of their own, which is readable when one of them can: so pausing a reader and waiting to
        # write on the same descriptor, which different threads do, never meet.
        self._writers = select.epoll()
        self._on_readable: dict[int, Callable[[], object]] = {}
        self._on_writable: dict[int, Callable[[], object]] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_write, False)
        self._waking = threading.RLock()  # reentrant: a finalizer may give an order while this thread does
        self._timers: list[tuple[float, int, Callable[[], object]]] = []
        self._orders: deque[Callable[[], object]] = deque()
        self._watched: set[Watched] = set()
        self._numbers = itertools.count()
        self._stopped = False
        self.read(self._wake_read, self._take_orders)
        self.read(self._writers.fileno(), self._write)
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------------ descriptors

    def read(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back for as long as the descriptor is readable, until `forget`."""
        self._on_readable[fd] = callback
        self._readers.register(fd, select.EPOLLIN)

    def pause(self, fd: int) -> None:
        """Do not look at it until `resume`; what has come then is noticed then."""
        # One-shot without an event: even the end of the other side, which cannot be masked, is told once only.
        try:  # (not `suppress`, nor here below: these two are on the path of a lone call)
            self._readers.modify(fd, select.EPOLLONESHOT)
        except (OSError, ValueError):
            pass

    def resume(self, fd: int) -> None:
        try:
            self._readers.modify(fd, select.EPOLLIN)
        except (OSError, ValueError):
            pass

    def write(self, fd: int, callback: Callable[[], object]) -> None:
        """Call back once, when the descriptor takes data."""
        self._on_writable[fd] = callback
        with contextlib.suppress(OSError, ValueError):  # closed meanwhile: nobody is there to write to
            self._writers.register(fd, select.EPOLLOUT)

    def forget(self, fd: int) -> None:
        """To be called before the descriptor is closed: its number may be another's at once."""
        if self._on_readable.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._readers.unregister(fd)
        if self._on_writable.pop(fd, None) is not None:
            with contextlib.suppress(OSError, ValueError):
                self._writers.unregister(fd)

    # ------------------------------------------------------------------------------------------------ orders

    def call(self, callback: Callable[[], object]) -> None:
        """In the loop's thread, soon."""
        self._orders.append(callback)
        with self._waking, contextlib.suppress(BlockingIOError):
            if not self._stopped:
                os.write(self._wake_write, b"!")

    def later(self, delay: float, callback: Callable[[], object]) -> None:
        """Once, after so many seconds; until then whatever the callback holds is held (see `weakly`)."""
        due = time.monotonic() + delay
        self.call(lambda: heapq.heappush(self._timers, (due, next(self._numbers), callback)))

    def watch(self, session: Watched) -> None:
        """Tick it from now on."""
        self.call(lambda: self._watched.add(session))

    def forget_thread(self) -> None:
        """In a forked child there is no such thread, and what it is woken by is the parent's."""
        self._waking = threading.RLock()
        self._stopped = True

    def is_current(self) -> bool:
        return threading.current_thread() is self._thread

    def stop(self) -> None:
        """Ends the thread; callbacks not yet called never are."""
        with self._waking, contextlib.suppress(BlockingIOError):
            if self._stopped:
                return
            self._stopped = True
            os.write(self._wake_write, b"!")
        if not self.is_current():
            self._thread.join()

    # ------------------------------------------------------------------------------------------------ the thread

    def _run(self) -> None:
        while not self._stopped:
            for fd, _ in self._readers.poll(self._patience()):
                callback = self._on_readable.get(fd)
                if callback is not None:
                    self._guarded(callback)
            now = time.monotonic()
            while self._timers and self._timers[0][0] <= now:
                self._guarded(heapq.heappop(self._timers)[2])
            for session in [session for session in self._watched if not self._tick(session, now)]:
                self._watched.discard(session)
        with self._waking:  # not while somebody is about to wake us: the descriptor would be another's
            self._readers.close()
            self._writers.close()
            os.close(self._wake_read)
            os.close(self._wake_write)

    def _patience(self) -> float | None:
        if self._watched:
            return _TICK
        return max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None

    def _take_orders(self) -> None:
        os.read(self._wake_read, 4096)
        # Read first: an order that comes from now on writes again, so none is left behind.
        while self._orders:
            self._guarded(self._orders.popleft())

    def _write(self) -> None:
        for fd, _ in self._writers.poll(0):
            # Taken out before the callback runs: should that not get rid of everything, it asks again.
            callback = self._on_writable.pop(fd, None)
            with contextlib.suppress(OSError, ValueError):
                self._writers.unregister(fd)
            if callback is not None:
                self._guarded(callback)

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
            _log.exception("a callback of the %s thread failed", threading.current_thread().name)


def weakly(method: Callable[[], object]) -> Callable[[], object]:
    """A bound method as a callback that does not keep its object: what has gone by then needs no looking after."""
    reference = weakref.WeakMethod(method)

    def call() -> None:
        found = reference()
        if found is not None:
            found()

    return call
