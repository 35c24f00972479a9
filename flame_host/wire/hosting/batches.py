"""Runs the calls of one task of the cluster: all are handed to the session at once, and answered together."""

from __future__ import annotations

import time
import uuid
from collections import OrderedDict, deque
from collections.abc import Sequence
from queue import SimpleQueue
from typing import Any

from flame_host.api import (
    Buffer,
    CallOptions,
    FlameError,
    FormatNotAllowedError,
    LogRecord,
    ObjectRef,
    Payload,
    SerializationError,
    Session,
    TaskError,
    buffer_size,
    buffer_view,
)
from flame_host.wire.batches import (
    ELSEWHERE,
    BatchCall,
    BatchOutcome,
    CallOutcome,
    decode_calls,
    encode_outcomes,
    outcomes_elsewhere,
)
from flame_host.wire.envelope import Content, SessionOrder, plan_digest
from flame_host.wire.hosting.objects import Objects
from flame_host.wire.outcomes import OUTPUT_LIMIT, Failure, failure_of, failure_of_report, with_report

INLINE_LIMIT = 1 << 20
"""Bytes of a value that travels within a message; what is larger goes through the cache, which is quicker from about there."""
_ITEMS_LIMIT = 256 << 20
_LOG_LIMIT = 64 << 10
_REMEMBERED = 16_384
_QUIET_AFTER = 8
_LOG_SECONDS = 0.003
_ALL = 1 << 62


class RunningCall:
    """A task of the local engine that is one call of a batch."""

    __slots__ = ("_batch", "attempts", "error", "frame", "items", "items_bytes", "number", "options", "report", "value")

    frame: Any
    options: CallOptions | None

    def __init__(self, batch: _Batch, timeout: float) -> None:
        self._batch = batch
        self.frame = None
        self.number = 0
        self.attempts = 0
        self.options = CallOptions(timeout=timeout) if timeout else None
        self.value: tuple[bytes, Sequence[Buffer]] | None = None
        self.report = b""
        self.error: BaseException | None = None
        self.items: list[tuple[bytes, tuple[Buffer, ...]]] | None = None
        self.items_bytes = 0

    def begin(self) -> bool:
        return not self.done()

    def succeed(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        if not self.done():
            self.value = (data, tuple(buffers))
            self._batch.one_less()

    def fail_remotely(self, report: bytes) -> None:
        if not self.done():
            self.report = bytes(report)
            self._batch.one_less()

    def fail(self, error: BaseException) -> None:
        if not self.done():
            self.error = error
            self._batch.one_less()

    def done(self) -> bool:
        return self.value is not None or self.error is not None or bool(self.report)

    def open_stream(self) -> None:
        """Nobody takes items one by one: all of them come with the outcome, so that the generator may go on to its end."""
        self.items = self.items or []
        self._batch.events.put(self)

    def stream(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        assert self.items is not None
        self.items.append((bytes(data), tuple(buffers)))
        self.items_bytes += len(data) + sum(map(buffer_size, buffers))
        if self.items_bytes > _ITEMS_LIMIT and not self.done():
            self.error = TaskError(
                f"the generator has given {len(self.items)} items of {self.items_bytes} bytes, and a cluster brings all of them at its end",
                hint="yield less, or put large items into the cache and yield their references",
            )
            self._batch.events.put(self)
            self._batch.one_less()


class _Batch:
    """Calls that somebody waits for."""

    def __init__(self, count: int) -> None:
        self.events: SimpleQueue[RunningCall | None] = SimpleQueue()
        self.first = 0.0
        self._left = [None] * count

    def one_less(self) -> None:
        self._left.pop()  # atomic: answers come from more than one thread
        self.first = self.first or time.perf_counter()
        if not self._left:
            self.events.put(None)


class BatchRunner:
    """A session's way from the cluster's tasks to calls and back."""

    def __init__(self, order: SessionOrder, objects: Objects, prefix: str, session: Session) -> None:
        self._format = order.plan.serializer
        self._plan = plan_digest(order.plan)
        self._objects = objects
        self._prefix = prefix
        self._session = session
        self._executor = uuid.uuid4().hex
        self._numbers: OrderedDict[int, int] = OrderedDict()
        self._logs: deque[LogRecord] = deque()
        self._quiet = 0

    def hear(self, record: LogRecord) -> None:
        """Output of a worker, from the thread that reads it."""
        self._logs.append(record)

    def run(self, data: bytes) -> bytes:
        """Raises `Failure` when there was one call only, and it failed: the cluster then shows its text."""
        calls, format, plan = decode_calls(data)
        if plan != self._plan:
            raise SerializationError(f"the calls were made under plan {plan}, the session under {self._plan}")
        if format != self._format:
            raise FormatNotAllowedError(f"arguments of format {format!r}; the session's plan says {self._format!r}")
        running, seconds = self._start(calls)
        outcomes = tuple(map(self._outcome, running))
        batch = BatchOutcome(outcomes, seconds, self._executor, self._heard())
        if len(outcomes) == 1 and outcomes[0].failed:
            self._fail(outcomes[0], batch)
        encoded = encode_outcomes(batch, self._format)
        if len(encoded) > OUTPUT_LIMIT:
            return outcomes_elsewhere(self._objects.put(self._prefix, Payload(ELSEWHERE, encoded)))
        return encoded

    def _start(self, calls: Sequence[BatchCall]) -> tuple[list[RunningCall], float]:
        """Submit all, and return when each has ended; and how long they took, without the way to the first of several."""
        batch = _Batch(len(calls))
        begun = time.perf_counter()
        running = [RunningCall(batch, call.timeout) for call in calls]
        for task, call in zip(running, calls, strict=True):
            try:
                content = self._here(call.content)
                references = [self._here(reference) for reference in call.references]
                self._session.submit(task, call.method, content.data, content.buffers, references)
            except FlameError as error:
                task.fail(error)
            self._numbers[task.number] = call.number
        while len(self._numbers) > _REMEMBERED:
            self._numbers.popitem(last=False)
        if len(running) == 1:
            self._session.drive(running[0], lambda: running[0].done() or not batch.events.empty(), None)
        if running:
            self._wait(batch)
        end = time.perf_counter()
        several = len(running) > 1
        return running, (end - batch.first) * len(running) / (len(running) - 1) if several else end - begun

    def _wait(self, batch: _Batch) -> None:
        while (task := batch.events.get()) is not None:
            if task.error is not None:
                self._session.cancel(task, force=True)
            else:
                self._session.grant(task, _ALL)

    def _here(self, content: Content) -> Payload:
        return self._objects.get(content) if isinstance(content, ObjectRef) else content

    def _outcome(self, task: RunningCall) -> CallOutcome:
        items = None if task.items is None else tuple(self._payload(*item) for item in task.items)
        if task.error is not None:
            failure = task.error if isinstance(task.error, FlameError) else TaskError(failure_of(task.error).text)
            return CallOutcome(error=failure, items=items)
        if task.value is None:
            return CallOutcome(report=task.report, items=items)
        payload = self._payload(*task.value)
        try:
            return CallOutcome(self._objects.put(self._prefix, payload) if payload.size > INLINE_LIMIT else payload, items=items)
        except FlameError as error:
            return CallOutcome(error=error, items=items)

    def _payload(self, data: bytes, buffers: Sequence[Buffer]) -> Payload:
        return Payload(self._format, bytes(data), tuple(map(buffer_view, buffers)))

    def _fail(self, outcome: CallOutcome, batch: BatchOutcome) -> None:
        failure = failure_of(outcome.error) if outcome.error is not None else failure_of_report(outcome.report)
        encoded = encode_outcomes(batch, self._format)
        raise Failure(failure.code, with_report(failure.text, encoded))

    def _heard(self) -> tuple[tuple[int, str, str], ...]:
        """What was printed. Output comes by another way than answers: a moment is waited for it, unless nothing ever came."""
        if not self._logs and self._quiet < _QUIET_AFTER:
            time.sleep(_LOG_SECONDS)
        self._quiet = 0 if self._logs else self._quiet + 1
        told: list[tuple[int, str, str]] = []
        room = _LOG_LIMIT
        while self._logs and room > 0:
            record = self._logs.popleft()
            text = record.text[:room]
            room -= len(text)
            told.append((self._numbers.get(record.task, 0), record.stream, text))
        if self._logs:
            self._logs.clear()
            told.append((0, "stderr", "… more was printed; the rest is in the log of the node\n"))
        return tuple(told)
