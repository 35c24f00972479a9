"""Making calls: encode, wait for arguments that are not there yet, submit.

A call whose arguments hold futures is submitted from the done-callback of the last of them; no thread waits. A stateful service
keeps the order of its calls: one that waits for its arguments holds back those made after it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from flame_host.api import Buffer, CallOptions, ObjectRef, Payload
from flamepy._calls.callbacks import at_once
from flamepy._calls.future import ObjectFuture
from flamepy._calls.session import SessionHandle


def collect(found: list[Any], value: object) -> int | None:
    """Asked by the serializer about each object on its way: a future or a reference stays here and an index travels."""
    if isinstance(value, (ObjectFuture, ObjectRef)):
        found.append(value)
        return len(found) - 1
    return None


class CallSite:
    """Where the calls of one service are made."""

    __slots__ = ("_draining", "_future", "_held", "_lock", "_ordered", "_pending", "dumps", "handle", "submit")

    def __init__(self, handle: SessionHandle, *, ordered: bool, future: type[ObjectFuture[Any]] = ObjectFuture) -> None:
        self.handle = handle
        self._future = future
        self.dumps = handle.serializer.dumps
        self.submit = handle.session.submit
        self._ordered = ordered
        self._held: deque[_HeldCall] = deque()
        self._pending: dict[int, _HeldCall] = {}
        self._lock = threading.RLock()  # an engine that runs calls at once comes back here from within a submission
        self._draining = False

    def call(self, method: str, args: tuple[Any, ...], kwargs: dict[str, Any], options: CallOptions | None = None) -> ObjectFuture[Any]:
        future = self._future(self.handle)
        if options is not None:
            future.options = options
        found: list[Any] = []
        buffers: list[Buffer] = []
        data = self.dumps((args, kwargs), buffers=buffers, reference=partial(collect, found))
        if found or self._held:
            self._hold(_HeldCall(future, method, data, buffers, found))
        else:
            self.submit(future, method, data, buffers)
        return future

    @property
    def held(self) -> int:
        """Calls that wait for their arguments, or behind such a one."""
        return len(self._held)

    def _hold(self, call: _HeldCall) -> None:
        if call.buffers and (self._held or not all(argument.done() for argument in call.futures)):
            call.keep_buffers()
        self._pending[id(call)] = call
        if not self._ordered:
            call.when_ready(partial(self._submit, call))
            return
        with self._lock:
            self._held.append(call)
        call.when_ready(self._drain)

    def wait_for_arguments(self) -> None:
        """Until no call waits for its arguments any more."""
        while self._pending:
            for call in list(self._pending.values()):
                call.future.wait()
                self._pending.pop(id(call), None)

    def _drain(self) -> None:
        """Submit from the head of the line as far as arguments are there."""
        with self._lock:
            if self._draining:
                return
            self._draining = True
            try:
                while self._held and self._held[0].ready:
                    # It leaves the line after it was submitted: until then, new calls must queue up behind it.
                    self._submit(self._held[0])
                    self._held.popleft()
            finally:
                self._draining = False

    def _submit(self, call: _HeldCall) -> None:
        if call.future.number:  # it has been; whoever did it was interrupted before it said so
            return
        try:
            self._submit_now(call)
        finally:
            self._pending.pop(id(call), None)

    def _submit_now(self, call: _HeldCall) -> None:
        future = call.future
        failed = next((argument for argument in call.futures if argument.failed()), None)
        if failed is not None:
            future.fail_like(failed)
            return
        if future.done():  # cancelled while it waited
            future.begin()
            return
        try:
            references = [self._payload(argument) for argument in call.found]
            self.submit(future, call.method, call.data, call.buffers, references)
        except Exception as error:
            future.fail(error)

    def _payload(self, argument: ObjectFuture[Any] | ObjectRef) -> Payload:
        if isinstance(argument, ObjectFuture):
            return argument.payload()
        return self.handle.fetch(argument)


class _HeldCall:
    """A call that was not submitted yet."""

    __slots__ = ("_missing", "_then", "buffers", "data", "found", "future", "futures", "method")

    buffers: Sequence[Buffer]

    def __init__(self, future: ObjectFuture[Any], method: str, data: bytes, buffers: Sequence[Buffer], found: list[Any]) -> None:
        self.future = future
        self.method = method
        self.data = data
        self.buffers = buffers
        self.found = found
        self.futures = [argument for argument in found if isinstance(argument, ObjectFuture)]

    @property
    def ready(self) -> bool:
        """Looked at, not remembered: whoever was to say so may have been interrupted (Ctrl-C)."""
        return all(argument.done() for argument in self.futures)

    def keep_buffers(self) -> None:
        """Copy what is still the caller's, who is free to change its arrays as soon as the call has been made."""
        self.buffers = [bytes(buffer) if isinstance(buffer, memoryview) else buffer for buffer in self.buffers]

    def when_ready(self, then: Callable[[], None]) -> None:
        """Call back once all argument futures are done; at once if they are."""
        self._then = then
        # One token for each future, taken out by its callback: popping is atomic, and whoever takes the last goes on.
        self._missing = [None] * (len(self.futures) + 1)
        ours = at_once(self._one_less)
        for argument in self.futures:
            argument.when_done(ours)
        self._one_less(None)

    def _one_less(self, _: object) -> None:
        with _counting:
            self._missing.pop()
            last = not self._missing
        if last:
            self._then()


_counting = threading.RLock()
