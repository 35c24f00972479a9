"""Who may wait awake: a thread that makes calls one after another, and is the only one to do so."""

from __future__ import annotations

import threading
import time

_CROWDED = 0.01
"""Seconds after which a thread that has not been followed by another counts as the only one."""


class CallingThread:
    """Tells whether one thread of this process alone waits for its calls: that one may wait awake.

    Several would take each other's turn at the interpreter, and the workers' cores. A wrong answer costs time, nothing else, so
    there is no lock.
    """

    def __init__(self) -> None:
        self.crowded = True
        self._thread = 0
        self._until = 0.0

    def is_alone(self) -> bool:
        """Ask from the thread that is going to wait."""
        me = threading.get_ident()
        if me != self._thread:
            self._thread = me
            self._until = time.monotonic() + _CROWDED
            self.crowded = True
        elif self.crowded:
            self.crowded = time.monotonic() < self._until
        return not self.crowded


calling_thread = CallingThread()
