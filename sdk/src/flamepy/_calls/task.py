"""A future as an engine sees it: the task that it hands to workers, and reports on."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import CancelledError
from concurrent.futures._base import CANCELLED, FINISHED, PENDING, RUNNING
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flame_host.api import Buffer
from flamepy._calls.promise import ENCODED, ERROR, OPEN, REPORT, SAME, Promise, lock

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture

T = TypeVar("T")


class PendingTask(Promise[T]):
    """`flame_host.api.Task`, and the way to take it back."""

    __slots__ = ()

    def cancel(self, force: bool = False) -> bool:
        """Take the call back.

        A queued one will not run. In a running one the worker raises, which code that never returns to Python does not notice.

        Args:
            force: kill the worker of a running task if it does not end by itself.

        Returns:
            Whether it is cancelled, or its worker has been told; False when it is done already, or cannot be stopped.
        """
        with lock:
            queued = self._state == PENDING
            if queued:
                self._state = CANCELLED
            elif self._state == RUNNING:
                if self._handle is None:
                    return False
                self._rare()["cancel"] = True
            else:
                return self.cancelled()
        if not queued:
            return self._bound().session.cancel(self, force=force)
        self._announce()
        if self._handle is not None:
            self._handle.session.cancel(self, force=force)
            self.begin()  # nobody else would: `concurrent.futures.wait` counts only what was announced
        return True

    def begin(self) -> bool:
        """See `flame_host.api.Task.begin`; called again when the task is tried again."""
        with lock:
            if self._state in OPEN:
                self._state = RUNNING
                return True
            if self._state != CANCELLED:
                return False
        self._notify_cancel()
        return False

    def succeed(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        """Keep the encoded result; it is decoded when, and where, it is asked for."""
        with lock:
            if self._lazy_condition is None:
                if self._state not in OPEN:
                    return
                self._data = data
                if buffers:
                    self._buffers = buffers
                self._kind = ENCODED
                self._state = FINISHED
                callbacks = self._callbacks
                if callbacks is None:
                    return
                self._callbacks = None
            else:
                callbacks = None
        if callbacks is None:
            self._settle(ENCODED, data, buffers, deliver=self._deliver)
        else:
            self._deliver(callbacks)

    def fail_remotely(self, report: bytes) -> None:
        """Keep the worker's report; the exception is rebuilt when it is asked for."""
        if self._extra is not None and "cancel" in self._extra:
            from flamepy._calls.errors import kind_of

            if kind_of(report) == "cancelled":
                self._settle_cancelled()
                return
        self._settle(REPORT, report, (), deliver=self._deliver)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, CancelledError):
            self._settle_cancelled()
        else:
            from flamepy._calls.errors import without_our_frames

            self._trace = without_our_frames(error)
            self._settle(ERROR, None, (), error, deliver=self._deliver)

    def fail_like(self, other: Promise[Any]) -> None:
        """An argument failed, so this call cannot be made: it ends with the very same error."""
        if other._kind == SAME:  # a long chain of calls has one root
            other = other._data
        if other.cancelled():
            self._settle_cancelled()
        else:
            self._settle(SAME, other, (), deliver=self._deliver)

    def open_stream(self) -> None:
        from flamepy._calls.streams import Items

        future = cast("ObjectFuture[Any]", self)
        extra = self._rare()
        if "items" in extra:  # the task is tried again, on a worker that has not heard how many were wanted
            extra["items"].say_again()
            return
        extra["items"] = Items(future)  # one thread calls this, so nobody else makes them
        self._bound().streams.add(future)
        self.notify()

    def stream(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        self._rare()["items"].append(data, buffers)
        self.notify()

    def notify(self) -> None:
        """Something has come, though it is not done."""
        condition = self._lazy_condition
        if condition is not None:
            with condition:
                condition.notify_all()
        for watcher in tuple(self._rare().get("watchers", ())):
            watcher(self)
