"""The task that runs, and how it is ended from outside: by a signal to its thread, whose handler raises.

Written by the task's thread; the control thread asks for an end and wakes it. Of the two races, "too late" is told by `busy` and the
number, "too early" by `unwanted`, which is looked at when the task begins. Standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import signal
import threading

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

INTERRUPTION = signal.SIGRTMAX - 2
"""Nobody else's, we hope; a task that takes it for itself can only be killed."""


class Interrupted(BaseException):
    """Raised in the task's thread to end it: not an Exception, so that the task does not swallow it by accident."""


class RunningTask:
    """What the worker's main thread is at.

    Attributes:
        number: of the call, 0 between two. busy: the user's code runs. shielded: it is ours that runs within the task, and must not be cut
        short. unwanted: numbers of calls that are to end.
    """

    def __init__(self) -> None:
        self.number = 0
        self.busy = False
        self.shielded = False
        self.unwanted: set[int] = set()
        self._thread = threading.get_ident()

    def interrupt(self, number: int) -> None:
        """Have the task's thread raise, also out of a system call it waits in. A call that has not begun raises when it does."""
        self.unwanted.add(number)
        signal.pthread_kill(self._thread, INTERRUPTION)

    def check(self, *_: object) -> None:
        """Also the signal's handler: runs in the task's thread, perhaps too late for the task that was meant."""
        if self.busy and not self.shielded and self.number in self.unwanted:
            self.unwanted.discard(self.number)
            raise Interrupted

    def undisturbed(self, send: Callable[..., object], *args: object) -> None:
        """Send from within a task: an interruption waits, for it must not cut a frame in two."""
        self.shielded = True
        try:
            send(*args)
        finally:
            self.shielded = False
        self.check()

    def runs_here(self) -> bool:
        """Whether this thread is the task's, in the middle of the user's code."""
        return self.busy and not self.shielded and threading.get_ident() == self._thread
