"""A task of the cluster while it has not ended, as the engine and its watchers see it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from flame_host.api import Buffer, TaskError, TaskState

if TYPE_CHECKING:
    from flame_host.api import CallOptions

Report = Callable[["Job", "Ending"], None]


class Ending:
    """How the engine says a task ended, not yet looked into.

    Attributes:
        data, buffers: the encoded result. report: a worker's error report. error: why there is neither.
    """

    __slots__ = ("buffers", "data", "error", "report")

    def __init__(
        self, data: bytes = b"", buffers: Sequence[Buffer] = (), report: bytes | None = None, error: BaseException | None = None
    ) -> None:
        self.data, self.buffers, self.report, self.error = data, buffers, report, error


class Job:
    """See `flame_host.api.Task`, whose methods engine threads call; the rest is the event loop's.

    Attributes:
        creation, started: milliseconds since the epoch; ``started`` is 0 until a worker has it.
        state: the last one: set when the result is kept, or while it ends. settled: it has its end, which is being written or is.
    """

    frame: Any = None
    number = 0
    attempts = 0
    options: CallOptions | None = None

    def __init__(self, session: Any, task_id: int, creation: int, data: bytes | None, report: Report) -> None:
        self.session = session
        self.task_id = task_id
        self.creation = creation
        self.input = data
        self.started = 0
        self.settled = False
        self.end: TaskState | None = None
        self.completion = 0
        self.output: bytes | None = None
        self.message: str | None = None
        self.watchers: list[asyncio.Future[None]] = []
        self._report = report
        self._over = False

    @property
    def state(self) -> TaskState:
        if self.end is not None:
            return self.end
        return TaskState.RUNNING if self.started else TaskState.PENDING

    def wake(self) -> None:
        """Whoever watches looks again."""
        watchers, self.watchers = self.watchers, []
        for watcher in watchers:
            if not watcher.done():
                watcher.set_result(None)

    # ------------------------------------------------------------------------------------------------ called by the engine

    def begin(self) -> bool:
        if self.settled or self.session.held:
            self.started = 0  # it may have been sent ahead, and come back
            return False
        if not self.started:
            self.started = now()
            self.session.began_task(self)
        return True

    def succeed(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        self._tell(Ending(bytes(data), tuple(buffers)))

    def fail_remotely(self, report: bytes) -> None:
        self._tell(Ending(report=bytes(report)))

    def fail(self, error: BaseException) -> None:
        self._tell(Ending(error=error))

    def done(self) -> bool:
        return self._over

    def open_stream(self) -> None:
        self.fail(TaskError("the task yields items, and a task of a cluster has one output", hint="return a list of them"))

    def stream(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        """It has failed when it began."""

    def _tell(self, ending: Ending) -> None:
        if not self._over:
            self._over = True
            self._report(self, ending)


def now() -> int:
    return time.time_ns() // 1_000_000
