"""Tasks that are to end: because they were cancelled, or ran too long. First asked, then their worker is killed."""

from __future__ import annotations

import threading
import time
from concurrent.futures import CancelledError
from typing import NamedTuple, Protocol

from flame_host.api import Task, TaskTimeoutError

_GRACE = 1.0  # seconds between asking a task to stop and killing its worker
_FORCED_GRACE = 0.2


class Worker(Protocol):
    def interrupt(self, task: Task) -> None: ...
    def kill(self, reason: Exception | None = None, task: Task | None = None) -> None: ...


class _Order(NamedTuple):
    due: float
    reason: Exception


class TimeLimits:
    """The tasks of a session that have been told to end, and why.

    The supervisor's ticks call `enforce`; `cancel` comes from any thread.
    """

    def __init__(self) -> None:
        self._orders: dict[Task, _Order] = {}
        self._lock = threading.RLock()  # a finalizer may cancel

    def __bool__(self) -> bool:
        return bool(self._orders)

    def cancel(self, task: Task, *, force: bool) -> None:
        """Known from now on, so to be called before the worker is told: the task may be on its way back to the queue."""
        with self._lock:
            due = time.monotonic() + _FORCED_GRACE if force else float("inf")
            self._orders[task] = _Order(due, CancelledError(f"task {task.number} was cancelled"))

    def cancelled(self, task: Task) -> Exception | None:
        """The reason, if somebody has cancelled it."""
        order = self._orders.get(task)
        return order.reason if order is not None and isinstance(order.reason, CancelledError) else None

    def enforce(self, worker: Worker, task: Task, limit: float, ran: float, now: float) -> None:
        """Look at a running task.

        Args:
            limit: seconds it may run, 0 for no limit. ran: seconds it has run.
        """
        order = self._orders.get(task)
        if order is not None:
            if now >= order.due:
                worker.kill(order.reason, task)
        elif limit and ran > limit:
            with self._lock:
                reason = TaskTimeoutError(f"task {task.number} ran longer than {limit:g} s and was stopped")
                self._orders.setdefault(task, _Order(now + _GRACE, reason))
            worker.interrupt(task)

    def ended(self, task: Task) -> TaskTimeoutError | None:
        """Forget it; the time limit that it ended of, if it did."""
        with self._lock:
            order = self._orders.pop(task, None)
        return order.reason if order is not None and isinstance(order.reason, TaskTimeoutError) else None

    def keep_only(self, alive: set[Task]) -> None:
        """Forget those that have ended by themselves."""
        with self._lock:
            self._orders = {task: order for task, order in self._orders.items() if task in alive}
