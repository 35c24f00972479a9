"""The future of a remote call, as its caller sees it."""

from __future__ import annotations

import concurrent.futures
import sys
import time
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import CancelledError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED
from types import TracebackType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar, cast

from flame_host.api import Payload, buffer_view
from flamepy._calls.promise import EMPTY, ENCODED, ENDED, ERROR, REPORT, SAME, UNREADABLE, VALUE
from flamepy._calls.task import PendingTask

if TYPE_CHECKING:
    from flamepy._refs import ObjectRef

T = TypeVar("T")

if sys.version_info >= (3, 11):
    _NotDone = TimeoutError
else:

    class _NotDone(concurrent.futures.TimeoutError, TimeoutError):
        """Until Python 3.10 these were two, and callers may be waiting for either."""


class _NoFrame:
    """Takes the frame that it is used in out of the traceback of what is raised: the caller's line remains, and the task's own.

    (Python 3.10 remembers the traceback elsewhere, and shows the frame.)
    """

    __slots__ = ("_future",)

    def __init__(self, future: ObjectFuture[Any]) -> None:
        self._future = future

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            error.__traceback__ = self._future._frames()


class ObjectFuture(PendingTask[T]):
    """A value that is being computed elsewhere.

    A real `concurrent.futures.Future`, awaitable, and usable as an argument of further calls, at any depth: the call is then made
    when the value is there, and the value goes from worker to worker without passing through this program's objects.
    """

    __slots__ = ()

    # ------------------------------------------------------------------ what concurrent.futures reaches for

    @property
    def _result(self) -> Any:
        return None if self._state != FINISHED or self._decode() is not None else self._given()

    @_result.setter
    def _result(self, value: Any) -> None:
        if self._kind == EMPTY and (value is not None or self._state == FINISHED):
            self._value, self._kind = value, VALUE

    @property
    def _exception(self) -> BaseException | None:
        return self._decode() if self._state == FINISHED else None

    @_exception.setter
    def _exception(self, error: BaseException | None) -> None:
        if error is not None:
            self._value, self._kind = error, ERROR

    # ------------------------------------------------------------------ asking

    def get(self, timeout: float | None = None) -> T:
        """The value, waiting for it; the task's exception if it raised one.

        Args:
            timeout: seconds to wait at most; ``TimeoutError`` after that, and the task goes on.
        """
        kind = self._kind
        if kind == VALUE and self._extra is None:
            return cast(T, self._value)
        if kind == ENCODED and not self._buffers and self._extra is None:  # nearly always; the rest is below
            try:
                self._value = self._handle.loads(self._data)  # type: ignore[union-attr]
                self._kind = VALUE
                return cast(T, self._value)
            except Exception:  # raised again, and kept, where all errors are
                pass
        error = self._wait_and_decode(timeout)
        if error is None:
            return self._given()
        with _NoFrame(self):
            self._raise(error)

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
        if self._state in ENDED:
            return True
        if not self._wait_until(self._answers, timeout):
            return False
        if self._state not in ENDED and self._extra is not None:
            self._extra["items"].let_all_come()
        return self._wait_until(self.done, timeout)

    def _wait_until(self, enough: Callable[[], bool], timeout: float | None) -> bool:
        if self._handle is not None and self.number:
            began = time.monotonic()
            self._handle.session.drive(self, enough, timeout)
            if enough():
                return True
            timeout = None if timeout is None else max(0.0, timeout - (time.monotonic() - began))
        condition = self._condition
        with condition:
            return condition.wait_for(enough, timeout)

    def _answers(self) -> bool:
        """Whether it is done, or a generator that has begun."""
        return self._state in ENDED or self._is_stream()

    def ref(self, timeout: float | None = None) -> ObjectRef:
        """Where the value stands in the cache, waiting for it.

        The first call puts it there. It stays until the Runner is closed, so that it can be used after this future is gone.
        """
        error = self._wait_for(timeout) or (self._decode() if self.failed() else None)
        if error is not None:
            with _NoFrame(self):
                self._raise(error)
        extra = self._rare()
        if "ref" not in extra:
            extra["ref"] = self._bound().keep(self)
        return cast("ObjectRef", extra["ref"])

    def payload(self) -> Payload:
        """The encoded value of a future that is done and did not fail."""
        if self._data is not None:
            return Payload(self._bound().format, self._data, tuple(self._buffers))
        return self._bound().encode(self._value)

    def logs(self) -> str:
        """What the task has printed so far, standard output and error in the order they came."""
        return "" if self._handle is None else self._handle.logs_of(self.number)

    def __await__(self) -> Generator[Any, None, T]:
        if not self._answers():
            from flamepy._calls.streams import until

            try:
                yield from until(self, self._answers).__await__()
            except BaseException:
                if self._state not in ENDED:  # the coroutine was cancelled, and with it what it waited for
                    self.cancel()
                raise
        with _NoFrame(self):
            return self.get(0)

    def __iter__(self) -> Iterator[Any]:
        from flamepy._calls.streams import items_of

        return items_of(self)

    def __aiter__(self) -> AsyncIterator[Any]:
        from flamepy._calls.streams import async_items_of

        return async_items_of(self)

    def _raise(self, error: BaseException) -> NoReturn:
        try:
            with _NoFrame(self):
                raise error.with_traceback(self._frames())
        finally:
            del error, self  # a traceback that shows this frame (see `_NoFrame`) would keep itself alive

    # ------------------------------------------------------------------ decoding

    def _wait_and_decode(self, timeout: float | None) -> BaseException | None:
        """Wait; the error to raise, or None when ``_value`` holds the value."""
        return self._wait_for(timeout) or self._decode()

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
        if kind == ENCODED:
            try:
                # The bytes are kept: they are what this future stands for as an argument, whatever becomes of the decoded value.
                self._value = self._bound().decode(self._data, [buffer_view(buffer) for buffer in self._buffers])
                self._kind = VALUE
            except Exception as error:
                self._value, self._trace, self._kind = error, error.__traceback__, UNREADABLE
        elif kind == REPORT:
            from flamepy._calls.errors import rebuild

            raised = rebuild(self._data, self._bound().decode)
            self._value, self._trace, self._kind = raised, raised.__traceback__, ERROR
        elif kind == SAME:
            return cast("BaseException | None", self._data._take_error_into(self))
        return self._value if self._kind in (ERROR, UNREADABLE) else None

    def _take_error_into(self, other: ObjectFuture[Any]) -> BaseException | None:
        error = self._decode_outcome()
        other._trace = self._trace
        return error

    # ------------------------------------------------------------------ odds and ends

    def __reduce__(self) -> Any:
        raise TypeError("an ObjectFuture travels only as an argument of a service call; store .get() or .ref() instead")

    def _label(self) -> str:
        where = f" of {self._handle.label}" if self._handle is not None else ""
        return f"task {self.number}{where}" if self.number else f"a task{where}"

    def __repr__(self) -> str:
        where = "" if self._handle is None else f" of {self._handle.label}"
        number = f" {self.number}" if self.number else ""
        text = f"<{type(self).__name__}{number}{where} at {id(self):#x} state={self._state.partition('_')[0].lower()}"
        if self._state == FINISHED:
            if self._kind in (VALUE, ENCODED):
                text += f" returned {type(self._value).__name__}" if self._kind == VALUE else f" returned {self._sizes()} bytes"
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
