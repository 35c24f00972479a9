"""A future from within: how it is settled, and how those who wait for it are told.

`Promise` is a `concurrent.futures.Future` that costs next to nothing until somebody waits for it: one object with slots, no instance
dictionary, no lock, no condition, no list. A program may hold a million of them.

How a settler and a waiter meet without a lock of their own: a condition is created, and the state is changed, under one lock of
this module. Whoever creates a condition afterwards looks at the state; whoever settles looks for a condition and, finding one,
holds it as well while it changes the state, which is what `concurrent.futures.wait` and `as_completed` rely on.

Lock order: a promise's condition, then the module's lock. Callbacks are called with neither.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from concurrent.futures._base import (
    CANCELLED,
    CANCELLED_AND_NOTIFIED,
    FINISHED,
    LOGGER,
    PENDING,
    RUNNING,
    InvalidStateError,
)
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

from flame_host.api import Buffer, CallOptions
from flamepy._calls.callbacks import LoopCallback, at_once, callback_thread, one_after_another, running_loop

if TYPE_CHECKING:
    from typing_extensions import Self

    from flamepy._calls.session import SessionHandle

T = TypeVar("T")

EMPTY, ENCODED, VALUE, REPORT, ERROR, SAME, UNREADABLE = range(7)
"""What the outcome is held as: nothing yet, bytes to decode, a value, a worker's report, an exception, another future's failure,
bytes that cannot be decoded here but may well be where they are going."""

OPEN = frozenset({PENDING, RUNNING})
ENDED = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})

# Reentrant: the garbage collector may run a finalizer, and a signal a handler, that settles a future while we hold it.
lock = threading.RLock()
# In a forked child, where a thread of the parent may have held it.
os.register_at_fork(after_in_child=lock._at_fork_reinit)  # type: ignore[attr-defined]


class Promise(Future[T]):
    """What will be known of a task. ``attempts``, ``frame``, ``number`` and ``options`` are the engine's, see `flame_host.api.Task`."""

    __slots__ = (
        "_buffers",
        "_callbacks",
        "_data",
        "_extra",
        "_handle",
        "_kind",
        "_lazy_condition",
        "_lazy_waiters",
        "_state",
        "_trace",
        "_value",
        "attempts",
        "frame",
        "number",
        "options",
    )

    _state: str
    frame: Any
    number: int
    attempts: int
    options: CallOptions | None

    def __init__(self, handle: SessionHandle | None = None) -> None:
        # Not super().__init__(): it would make the condition, two lists and a dictionary for each call.
        self._handle = handle
        self._state = PENDING
        self._kind = EMPTY
        self._data: Any = None
        self._buffers: Any = ()
        self._value: Any = None
        self._trace: TracebackType | None = None
        self._callbacks: list[Callable[[Any], object]] | None = None
        self._lazy_condition: threading.Condition | None = None
        self._lazy_waiters: list[Any] | None = None
        self._extra: dict[str, Any] | None = None
        self.frame = None
        self.number = 0
        self.attempts = 0
        self.options = None

    # ------------------------------------------------------------------ what concurrent.futures reaches for

    @property
    def _condition(self) -> threading.Condition:  # type: ignore[override]
        condition = self._lazy_condition
        if condition is None:
            made = threading.Condition()
            with lock:
                condition = self._lazy_condition
                if condition is None:
                    condition = self._lazy_condition = made
        return condition

    @property
    def _waiters(self) -> list[Any]:  # type: ignore[override]
        waiters = self._lazy_waiters
        if waiters is None:
            waiters = self._lazy_waiters = []  # only ever touched under the condition
        return waiters

    @property
    def _done_callbacks(self) -> list[Callable[[Any], object]]:
        with lock:
            if self._callbacks is None:
                self._callbacks = []
            return self._callbacks

    # ------------------------------------------------------------------ asking without waiting

    def done(self) -> bool:
        return self._state in ENDED

    def running(self) -> bool:
        return self._state == RUNNING

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def failed(self) -> bool:
        """Whether it is done without a value; decodes nothing."""
        return self.cancelled() or self._kind in (REPORT, SAME) or (self._kind == ERROR and self._value is not None)

    # ------------------------------------------------------------------ callbacks

    def add_done_callback(self, fn: Callable[[Self], object]) -> None:
        """Call ``fn(self)`` when done, or now if it is done already.

        When an engine brings the result, from a thread of its own for this purpose, so ``fn`` may wait for other futures. In a coroutine
        (``asyncio.wait`` does so), by the running loop, as with asyncio's own futures; those of ``rr.submit`` and ``rr.executor()`` call
        back from threads in any case, as `concurrent.futures` does.
        """
        loop = running_loop() if not self._is_for_threads() or getattr(fn, "__module__", "") == "asyncio.tasks" else None
        self.when_done(fn if loop is None else LoopCallback(fn, loop))

    def remove_done_callback(self, fn: Callable[[Self], object]) -> int:
        """Forget a callback; how often it was there."""
        with lock:
            before = self._callbacks or []
            self._callbacks = [known for known in before if known != fn and getattr(known, "function", None) != fn]
            return len(before) - len(self._callbacks)

    def when_done(self, fn: Callable[[Self], object]) -> None:
        """Like `add_done_callback`; what is marked with `at_once` is called by whoever settles this future, and must not wait."""
        with lock:
            if self._state in OPEN:
                if self._callbacks is None:
                    self._callbacks = [fn]
                else:
                    self._callbacks.append(fn)
                return
        self.call_back(fn)

    def call_back(self, callback: Callable[[Any], object]) -> None:
        """Call it with this, and log what it raises."""
        try:
            callback(self)
        except Exception:
            LOGGER.exception("exception calling callback for %r", self)

    # ------------------------------------------------------------------ the executor's side (concurrent.futures.Future)

    def set_running_or_notify_cancel(self) -> bool:
        with lock:
            state = self._state
            if state == PENDING:
                self._state = RUNNING
                return True
        if state == CANCELLED:
            self._notify_cancel()
            return False
        LOGGER.critical("Future %s in unexpected state: %s", id(self), state)
        raise RuntimeError("Future in unexpected state")

    def set_result(self, result: T) -> None:
        if not self._settle(VALUE, None, (), result):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception: BaseException | None) -> None:
        self._trace = None if exception is None else exception.__traceback__
        if not self._settle(ERROR, None, (), exception):
            raise InvalidStateError(f"{self._state}: {self!r}")

    # ------------------------------------------------------------------ settling

    def _settle(
        self,
        kind: int,
        data: Any,
        buffers: Sequence[Buffer],
        value: Any = None,
        deliver: Callable[[Iterable[Callable[[Any], object]]], None] | None = None,
    ) -> bool:
        condition = self._lazy_condition
        while True:
            if condition is not None:
                condition.acquire()
            with lock:
                if condition is None and self._lazy_condition is not None:
                    raced = True  # somebody began to wait in between; the condition has to be held, and is taken before the lock
                else:
                    raced = False
                    if self._state not in OPEN:
                        if condition is not None:
                            condition.release()
                        return False
                    self._data, self._buffers, self._value, self._kind = data, buffers, value, kind
                    self._state = FINISHED
            if not raced:
                break
            condition = self._lazy_condition
        if condition is not None:
            failed = kind in (REPORT, SAME) or (kind == ERROR and value is not None)
            for waiter in self._lazy_waiters or ():
                (waiter.add_exception if failed else waiter.add_result)(self)
            condition.notify_all()
            condition.release()
        self._run_callbacks(deliver or self._call_all)
        return True

    def _settle_cancelled(self) -> None:
        with lock:
            if self._state not in OPEN:
                return
            self._state = CANCELLED
        self._notify_cancel()
        self._run_callbacks(self._deliver)

    def _notify_cancel(self) -> None:
        with self._condition:
            with lock:
                if self._state != CANCELLED:
                    return
                self._state = CANCELLED_AND_NOTIFIED
            for waiter in self._lazy_waiters or ():
                waiter.add_cancelled(self)
            self._condition.notify_all()

    def _announce(self) -> None:
        """Wake those who wait and run the callbacks, after the state became CANCELLED."""
        if self._lazy_condition is not None:
            with self._lazy_condition:
                self._lazy_condition.notify_all()
        self._run_callbacks(self._call_all)

    def _run_callbacks(self, deliver: Callable[[Iterable[Callable[[Any], object]]], None]) -> None:
        with lock:
            callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            deliver(callbacks)

    def _call_all(self, callbacks: Iterable[Callable[[Any], object]]) -> None:
        one_after_another([(self, callback) for callback in callbacks])

    def _deliver(self, callbacks: Iterable[Callable[[Any], object]]) -> None:
        """In the engine's thread: ours are called, the user's are handed over."""
        ours: list[tuple[Promise[Any], Callable[[Any], object]]] = []
        for callback in callbacks:
            if isinstance(callback, (at_once, LoopCallback)):
                ours.append((self, callback))
            else:
                callback_thread.call(self.call_back, callback)
        one_after_another(ours)

    def _is_for_threads(self) -> bool:
        return self._handle is not None and self._handle.for_threads

    def _rare(self) -> dict[str, Any]:
        """Fields that few futures have."""
        if self._extra is None:
            with lock:  # the engine's thread and the user's may both come for the first time
                if self._extra is None:
                    self._extra = {}
        return self._extra

    def _bound(self) -> SessionHandle:
        if self._handle is None:
            raise InvalidStateError("this future was not made by a service")
        return self._handle
