"""Hands events to observers, in batches, from one background thread; a broken observer is dropped and said so once."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence

from flame_host.api import Event, Observer

_INTERVAL = 0.1
_log = logging.getLogger(__name__)


class ObserverThread:
    """Without observers it costs nothing. Events beyond ``capacity`` that nobody took yet are dropped, oldest first."""

    def __init__(self, observers: Sequence[Observer], capacity: int = 100_000) -> None:
        self._observers = list(observers)
        self._events: deque[Event] = deque(maxlen=capacity)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def add(self, event: Event) -> None:
        if not self._observers:
            return
        self._events.append(event)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="flame-observers", daemon=True)
                self._thread.start()

    def flush(self) -> None:
        """Hand over all that is waiting, now."""
        batch = [self._events.popleft() for _ in range(len(self._events))]
        for observer in list(self._observers) if batch else ():
            try:
                observer.observe(batch)
            except Exception:
                _log.exception("observer %s failed and is not asked any more", observer.name)
                self._observers.remove(observer)

    def _run(self) -> None:
        idle = 0
        while idle < 50:  # ends after five quiet seconds; the next event starts another
            time.sleep(_INTERVAL)
            idle = 0 if self._events else idle + 1
            self.flush()
        with self._lock:
            self._thread = None
