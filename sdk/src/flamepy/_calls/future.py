"""The future of a remote call.

`ObjectFuture` is a `concurrent.futures.Future` that costs next to nothing until somebody waits for it: one object with slots, no
instance dictionary, no lock, no condition, no list. A program may hold a million of them.

How a settler and a waiter meet without a lock of their own: a condition is created, and the state is changed, under one lock of
this module. Whoever creates a condition afterwards looks at the state; whoever settles looks for a condition and, finding one,
holds it as well while it changes the state, which is what `concurrent.futures.wait` and `as_completed` rely on.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import os
import sys
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
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
from typing import TYPE_CHECKING, Any, TypeVar, cast

from flame_host.api import Buffer, CallOptions, Payload, buffer_view
from flamepy._calls.callbacks import callback_thread

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop

    from flamepy._calls.session import Source
    from flamepy._refs import ObjectRef

T = TypeVar("T")

_EMPTY, _ENCODED, _VALUE, _REPORT, _ERROR, _SAME, _UNREADABLE = range(7)
"""What the outcome is held as: nothing yet, bytes to decode, a value, a worker's report, an exception, another future's failure,
bytes that cannot be decoded here but may well be where they are going."""

_OPEN = frozenset({PENDING, RUNNING})
_ENDED = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED})


def _running_loop() -> AbstractEventLoop | None:
    """The event loop that this thread is in; asyncio is not imported for it."""
    asyncio = sys.modules.get("asyncio")
    return None if asyncio is None else asyncio._get_running_loop()


def _one_after_another(calls: list[tuple[ObjectFuture[Any], Callable[[Any], object]]]) -> None:
    """Call back; what that settles in turn comes after it, not within it: a chain may be as long as it likes."""
    waiting = getattr(_under_way, "waiting", None)
    if waiting is not None:
        waiting.extend(calls)
        return
    waiting = _under_way.waiting = deque(calls)
    try:
        while waiting:
            future, callback = waiting.popleft()
            future._call_back(callback)
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


class _LoopCallback:
    """A callback to be called by an event loop, with the context of whoever added it."""

    __slots__ = ("_context", "_loop", "function")

    def __init__(self, function: Callable[[Any], object], loop: AbstractEventLoop) -> None:
        self.function = function
        self._loop = loop
        self._context = contextvars.copy_context()

    def __call__(self, future: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits there any more
            self._loop.call_soon_threadsafe(self.function, future, context=self._context)


# Reentrant: the garbage collector may run a finalizer, and a signal a handler, that settles a future while we hold it.
_lock = threading.RLock()


def _renew() -> None:
    """In a forked child: a thread of the parent may have held it."""
    global _lock
    _lock = threading.RLock()


os.register_at_fork(after_in_child=_renew)


if sys.version_info >= (3, 11):
    _NotDone = TimeoutError
else:

    class _NotDone(concurrent.futures.TimeoutError, TimeoutError):
        """Until Python 3.10 these were two, and callers may be waiting for either."""


class ObjectFuture(Future[T]):
    """A value that is being computed elsewhere.

    A real `concurrent.futures.Future`, awaitable, and usable as an argument of further calls, at any depth: the call is then made
    when the value is there, and the value goes from worker to worker without passing through this program's objects.
    """

    __slots__ = (
        "_buffers",
        "_callbacks",
        "_data",
        "_extra",
        "_kind",
        "_lazy_condition",
        "_lazy_waiters",
        "_source",
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

    def __init__(self, source: Source | None = None) -> None:
        # Not super().__init__(): it would make the condition, two lists and a dictionary for each call.
        self._source = source
        self._state = PENDING
        self._kind = _EMPTY
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
            with _lock:
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
        with _lock:
            if self._callbacks is None:
                self._callbacks = []
            return self._callbacks

    @property
    def _result(self) -> Any:
        return None if self._state != FINISHED or self._decode() is not None else self._given()

    @_result.setter
    def _result(self, value: Any) -> None:
        if self._kind == _EMPTY and (value is not None or self._state == FINISHED):
            self._value, self._kind = value, _VALUE

    @property
    def _exception(self) -> BaseException | None:
        return self._decode() if self._state == FINISHED else None

    @_exception.setter
    def _exception(self, error: BaseException | None) -> None:
        if error is not None:
            self._value, self._kind = error, _ERROR

    # ------------------------------------------------------------------ asking

    def get(self, timeout: float | None = None) -> T:
        """The value, waiting for it; the task's exception if it raised one.

        Args:
            timeout: seconds to wait at most; ``TimeoutError`` after that, and the task goes on.
        """
        kind = self._kind
        if kind == _VALUE and self._extra is None:
            return cast(T, self._value)
        if kind == _ENCODED and not self._buffers and self._extra is None:  # nearly always; the rest is below
            try:
                self._value = self._source.loads(self._data)  # type: ignore[union-attr]
                self._kind = _VALUE
                return cast(T, self._value)
            except Exception:  # raised again, and kept, where all errors are
                pass
        error = self._wait_and_decode(timeout)
        if error is None:
            return self._given()
        try:
            raise error.with_traceback(self._frames())
        except BaseException:
            # The frame of this method is taken out of the traceback again: what remains is the caller's line and the task's own.
            # (Python 3.10 remembers the traceback elsewhere, and shows this frame.)
            error.__traceback__ = self._frames()
            raise
        finally:
            del error, self

    result = get

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The exception the task raised, None if it gave a value; waits like `get`."""
        if not self.wait(timeout):
            raise self._too_late(timeout)
        error = self._wait_for(0) or self._decode_outcome()
        if error is not None and self._state != FINISHED:
            raise error
        return error

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is done, whatever the outcome, and say whether it is.

        Of a generator, all items come here meanwhile: it could not end as long as nobody takes them.
        """
        if self._state in _ENDED:
            return True
        if not self._wait_until(self._answers, timeout):
            return False
        if self._state not in _ENDED and self._extra is not None:
            self._extra["items"].let_all_come()
        return self._wait_until(self.done, timeout)

    def _wait_until(self, enough: Callable[[], bool], timeout: float | None) -> bool:
        if self._source is not None and self.number:
            began = time.monotonic()
            self._source.session.drive(self, enough, timeout)
            if enough():
                return True
            timeout = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        condition = self._condition
        with condition:
            return condition.wait_for(enough, timeout)

    def _answers(self) -> bool:
        """Whether it is done, or a generator that has begun."""
        return self._state in _ENDED or self._is_stream()

    def done(self) -> bool:
        return self._state in _ENDED

    def running(self) -> bool:
        return self._state == RUNNING

    def cancelled(self) -> bool:
        return self._state in (CANCELLED, CANCELLED_AND_NOTIFIED)

    def ref(self, timeout: float | None = None) -> ObjectRef:
        """Where the value stands in the cache, waiting for it.

        The first call puts it there. It stays until the Runner is closed, so that it can be used after this future is gone.
        """
        error = self._wait_and_decode_if_failed(timeout)
        if error is not None:
            try:
                raise error.with_traceback(self._frames())
            except BaseException:
                error.__traceback__ = self._frames()
                raise
            finally:
                del error
        extra = self._rare()
        if "ref" not in extra:
            extra["ref"] = self._bound().keep(self)
        return cast("ObjectRef", extra["ref"])

    def failed(self) -> bool:
        """Whether it is done without a value; decodes nothing."""
        return self.cancelled() or self._kind in (_REPORT, _SAME) or (self._kind == _ERROR and self._value is not None)

    def payload(self) -> Payload:
        """The encoded value of a future that is done and did not fail."""
        if self._data is not None:
            return Payload(self._bound().format, self._data, tuple(self._buffers))
        return self._bound().encode(self._value)

    def logs(self) -> str:
        """What the task has printed so far, standard output and error in the order they came."""
        return "" if self._source is None else self._source.logs_of(self.number)

    def cancel(self, force: bool = False) -> bool:
        """Take the call back.

        A queued one will not run. In a running one the worker raises, which code that never returns to Python does not notice.

        Args:
            force: kill the worker of a running task if it does not end by itself.

        Returns:
            Whether it is cancelled, or its worker has been told; False when it is done already, or cannot be stopped.
        """
        with _lock:
            queued = self._state == PENDING
            if queued:
                self._state = CANCELLED
            elif self._state == RUNNING:
                if self._source is None:
                    return False
                self._rare()["cancel"] = True
            else:
                return self.cancelled()
        if not queued:
            return self._bound().session.cancel(self, force=force)
        self._announce()
        if self._source is not None:
            self._source.session.cancel(self, force=force)
            self.begin()  # nobody else would: `concurrent.futures.wait` counts only what was announced
        return True

    def add_done_callback(self, fn: Callable[[ObjectFuture[T]], object]) -> None:
        """Call ``fn(self)`` when done, or now if it is done already.

        When an engine brings the result, from a thread of its own for this purpose, so ``fn`` may wait for other futures. In a coroutine
        (``asyncio.wait`` does so), by the running loop, as with asyncio's own futures; those of ``rr.submit`` and ``rr.executor()`` call
        back from threads in any case, as `concurrent.futures` does.
        """
        loop = _running_loop() if not self._is_for_threads() or getattr(fn, "__module__", "") == "asyncio.tasks" else None
        self.when_done(fn if loop is None else _LoopCallback(fn, loop))

    def remove_done_callback(self, fn: Callable[[ObjectFuture[T]], object]) -> int:
        """Forget a callback; how often it was there."""
        with _lock:
            before = self._callbacks or []
            self._callbacks = [known for known in before if known != fn and getattr(known, "function", None) != fn]
            return len(before) - len(self._callbacks)

    def when_done(self, fn: Callable[[ObjectFuture[T]], object]) -> None:
        """Like `add_done_callback`; what is marked with `at_once` is called by whoever settles this future, and must not wait."""
        with _lock:
            if self._state in _OPEN:
                if self._callbacks is None:
                    self._callbacks = [fn]
                else:
                    self._callbacks.append(fn)
                return
        self._call_back(fn)

    # ------------------------------------------------------------------ the engine's side (flame_host.api.Task)

    def begin(self) -> bool:
        """See `flame_host.api.Task.begin`; called again when the task is tried again."""
        with _lock:
            if self._state in _OPEN:
                self._state = RUNNING
                return True
            if self._state != CANCELLED:
                return False
        self._notify_cancel()
        return False

    def succeed(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        """Keep the encoded result; it is decoded when, and where, it is asked for."""
        with _lock:
            if self._lazy_condition is None:
                if self._state not in _OPEN:
                    return
                self._data = data
                if buffers:
                    self._buffers = buffers
                self._kind = _ENCODED
                self._state = FINISHED
                callbacks = self._callbacks
                if callbacks is None:
                    return
                self._callbacks = None
            else:
                callbacks = None
        if callbacks is None:
            self._settle(_ENCODED, data, buffers, deliver=self._deliver)
        else:
            self._deliver(callbacks)

    def fail_remotely(self, report: bytes) -> None:
        """Keep the worker's report; the exception is rebuilt when it is asked for."""
        if self._extra is not None and "cancel" in self._extra:
            from flamepy._calls.errors import kind_of

            if kind_of(report) == "cancelled":
                self._settle_cancelled()
                return
        self._settle(_REPORT, report, (), deliver=self._deliver)

    def fail(self, error: BaseException) -> None:
        if isinstance(error, CancelledError):
            self._settle_cancelled()
        else:
            from flamepy._calls.errors import without_our_frames

            self._trace = without_our_frames(error)
            self._settle(_ERROR, None, (), error, deliver=self._deliver)

    def fail_like(self, other: ObjectFuture[Any]) -> None:
        """An argument failed, so this call cannot be made: it ends with the very same error."""
        if other._kind == _SAME:  # a long chain of calls has one root
            other = other._data
        if other.cancelled():
            self._settle_cancelled()
        else:
            self._settle(_SAME, other, (), deliver=self._deliver)

    def open_stream(self) -> None:
        from flamepy._calls.streams import Items

        extra = self._rare()
        if "items" in extra:  # the task is tried again, on a worker that has not heard how many were wanted
            extra["items"].say_again()
            return
        extra["items"] = Items(self)  # one thread calls this, so nobody else makes them
        self._bound().streams.add(self)
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

    # ------------------------------------------------------------------ the executor's side (concurrent.futures.Future)

    def set_running_or_notify_cancel(self) -> bool:
        with _lock:
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
        if not self._settle(_VALUE, None, (), result):
            raise InvalidStateError(f"{self._state}: {self!r}")

    def set_exception(self, exception: BaseException | None) -> None:
        self._trace = None if exception is None else exception.__traceback__
        if not self._settle(_ERROR, None, (), exception):
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
            with _lock:
                if condition is None and self._lazy_condition is not None:
                    raced = True  # somebody began to wait in between; the condition has to be held, and is taken before the lock
                else:
                    raced = False
                    if self._state not in _OPEN:
                        if condition is not None:
                            condition.release()
                        return False
                    self._data, self._buffers, self._value, self._kind = data, buffers, value, kind
                    self._state = FINISHED
            if not raced:
                break
            condition = self._lazy_condition
        if condition is not None:
            failed = kind in (_REPORT, _SAME) or (kind == _ERROR and value is not None)
            for waiter in self._lazy_waiters or ():
                (waiter.add_exception if failed else waiter.add_result)(self)
            condition.notify_all()
            condition.release()
        self._run_callbacks(deliver or self._call_all)
        return True

    def _settle_cancelled(self) -> None:
        with _lock:
            if self._state not in _OPEN:
                return
            self._state = CANCELLED
        self._notify_cancel()
        self._run_callbacks(self._deliver)

    def _notify_cancel(self) -> None:
        with self._condition:
            with _lock:
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
        with _lock:
            callbacks, self._callbacks = self._callbacks, None
        if callbacks:
            deliver(callbacks)

    def _call_all(self, callbacks: Iterable[Callable[[Any], object]]) -> None:
        _one_after_another([(self, callback) for callback in callbacks])

    def _deliver(self, callbacks: Iterable[Callable[[Any], object]]) -> None:
        """In the engine's thread: ours are called, the user's are handed over."""
        ours: list[tuple[ObjectFuture[Any], Callable[[Any], object]]] = []
        for callback in callbacks:
            if isinstance(callback, (at_once, _LoopCallback)):
                ours.append((self, callback))
            else:
                callback_thread.call(self._call_back, callback)
        _one_after_another(ours)

    def _call_back(self, callback: Callable[[Any], object]) -> None:
        try:
            callback(self)
        except Exception:
            LOGGER.exception("exception calling callback for %r", self)

    # ------------------------------------------------------------------ decoding

    def _wait_and_decode(self, timeout: float | None) -> BaseException | None:
        """Wait; the error to raise, or None when ``_value`` holds the value."""
        return self._wait_for(timeout) or self._decode()

    def _wait_and_decode_if_failed(self, timeout: float | None) -> BaseException | None:
        return self._wait_for(timeout) or (None if not self.failed() else self._decode())

    def _wait_for(self, timeout: float | None) -> BaseException | None:
        if not self._answers() and not self._wait_until(self._answers, timeout):
            return self._too_late(timeout)
        if self._state in (CANCELLED, CANCELLED_AND_NOTIFIED):
            return CancelledError()
        return None

    def _frames(self) -> TracebackType | None:
        """The task's own part of the traceback."""
        return self._trace if self._state == FINISHED else None

    def _too_late(self, timeout: float | None) -> BaseException:
        return _NotDone(f"{self._label()} was not done within {timeout:g} s")

    def _decode(self) -> BaseException | None:
        return None if self._is_stream() else self._decode_outcome()

    def _is_stream(self) -> bool:
        return self._extra is not None and "items" in self._extra

    def _given(self) -> T:
        """What `get` gives, once there is no error. Of a stream its items: ``_value`` is for its end, which may come any moment."""
        if self._extra is not None and "items" in self._extra:
            from flamepy._calls.streams import Stream

            return cast(T, Stream(self._extra["items"]))
        return cast(T, self._value)

    def _decode_outcome(self) -> BaseException | None:
        kind = self._kind
        if kind == _ENCODED:
            try:
                # The bytes are kept: they are what this future stands for as an argument, whatever becomes of the decoded value.
                self._value = self._bound().decode(self._data, [buffer_view(buffer) for buffer in self._buffers])
                self._kind = _VALUE
            except Exception as error:
                self._value, self._trace, self._kind = error, error.__traceback__, _UNREADABLE
        elif kind == _REPORT:
            from flamepy._calls.errors import rebuild

            raised = rebuild(self._data, self._bound().decode)
            self._value, self._trace, self._kind = raised, raised.__traceback__, _ERROR
        elif kind == _SAME:
            return cast("BaseException | None", self._data._take_error_into(self))
        return self._value if self._kind in (_ERROR, _UNREADABLE) else None

    def _take_error_into(self, other: ObjectFuture[Any]) -> BaseException | None:
        error = self._decode_outcome()
        other._trace = self._trace
        return error

    # ------------------------------------------------------------------ odds and ends

    def _is_for_threads(self) -> bool:
        return self._source is not None and self._source.for_threads

    def _rare(self) -> dict[str, Any]:
        """Fields that few futures have."""
        if self._extra is None:
            with _lock:  # the engine's thread and the user's may both come for the first time
                if self._extra is None:
                    self._extra = {}
        return self._extra

    def _bound(self) -> Source:
        if self._source is None:
            raise InvalidStateError("this future was not made by a service")
        return self._source

    def __await__(self) -> Generator[Any, None, T]:
        if not self._answers():
            from flamepy._calls.streams import until

            try:
                yield from until(self, self._answers).__await__()
            except BaseException:
                if self._state not in _ENDED:  # the coroutine was cancelled, and with it what it waited for
                    self.cancel()
                raise
        error = self._wait_and_decode(0)
        if error is None:
            return self._given()
        try:
            raise error.with_traceback(self._frames())
        except BaseException:
            error.__traceback__ = self._frames()
            raise
        finally:
            del error, self

    def __iter__(self) -> Iterator[Any]:
        from flamepy._calls.streams import items_of

        return items_of(self)

    def __aiter__(self) -> AsyncIterator[Any]:
        from flamepy._calls.streams import async_items_of

        return async_items_of(self)

    def __reduce__(self) -> Any:
        raise TypeError("an ObjectFuture travels only as an argument of a service call; store .get() or .ref() instead")

    def _label(self) -> str:
        where = f" of {self._source.label}" if self._source is not None else ""
        return f"task {self.number}{where}" if self.number else f"a task{where}"

    def __repr__(self) -> str:
        where = "" if self._source is None else f" of {self._source.label}"
        number = f" {self.number}" if self.number else ""
        text = f"<{type(self).__name__}{number}{where} at {id(self):#x} state={self._state.partition('_')[0].lower()}"
        if self._state == FINISHED:
            if self._kind in (_VALUE, _ENCODED):
                text += f" returned {type(self._value).__name__}" if self._kind == _VALUE else f" returned {self._sizes()} bytes"
            else:
                text += f" raised {self._failure_name()}"
        return text + ">"

    def _repr_html_(self) -> str:
        import html

        return f"<code>{html.escape(repr(self))}</code>"

    def _sizes(self) -> int:
        return self.payload().size

    def _failure_name(self) -> str:
        return type(self._decode_outcome()).__name__
