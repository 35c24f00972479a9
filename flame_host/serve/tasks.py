"""The tasks of all sessions: created, watched, ended. One event loop's; engine threads only call `Job`.

A task stands in its session's ``live`` from before it is written until its end is, so that in between nobody misses it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from flame_host.api import FlameError, TaskState
from flame_host.serve.jobs import Ending, Job, now
from flame_host.serve.records import SessionRecord, kept_task, live_task
from flame_host.serve.refusals import full, not_found, unavailable
from flame_host.serve.settings import Limits
from flame_host.serve.store import Store, TaskRow
from flame_host.wire.flame.v1 import types_pb2

log = logging.getLogger(__name__)

_AGAIN_SECONDS = 1.0


class Tasks:
    """Args:
        submit: has a task run.

    Attributes:
        began: tasks that a worker has begun and nobody has been told of. pending: how many have not ended; done: how many have.
        draining: what waits goes on waiting, for another server.
    """

    def __init__(self, store: Store, limits: Limits, submit: Callable[[Job], None]) -> None:
        self.began: deque[Job] = deque()
        self.pending = 0
        self.done = 0
        self.draining = False
        self._input_bytes = 0
        self._store = store
        self._limits = limits
        self._submit = submit
        self._loop = asyncio.get_running_loop()
        self._inbox: deque[tuple[Job, Ending]] = deque()
        self._awake = False

    # ------------------------------------------------------------------------------------------------ asked for

    def create(self, session: SessionRecord, data: bytes | None, then: Callable[[types_pb2.Task | FlameError], None]) -> None:
        """Keep it, answer, and run it: ``then`` gets the task, or why there is none, when that is known.

        No coroutine, because this is what most calls are.

        Raises:
            Refusal: there are too many.
        """
        if self.pending >= self._limits.tasks:
            raise full(f"{self.pending} tasks wait or run, which is this server's limit; wait for some to end")
        if self._input_bytes + len(data or b"") > self._limits.input_bytes:
            raise full(f"the inputs of waiting tasks have {self._input_bytes} bytes, and the limit is {self._limits.input_bytes}")
        session.last_task += 1
        job = Job(session, session.last_task, now(), data, self._report)
        self._add(job)

        def kept(problem: FlameError | None) -> None:
            if problem is not None:
                self._drop(job)
                then(problem)
                return
            then(live_task(session, job))
            if not job.settled:
                self._submit(job)

        self._store.save_task(session.number, job.task_id, job.creation, data, kept)

    def adopt(self, session: SessionRecord, row: TaskRow) -> Job:
        """One that an earlier server has left without an end."""
        job = Job(session, row.task_id, row.creation, row.input, self._report)
        self._add(job)
        return job

    def get(self, session: SessionRecord, task_id: int) -> types_pb2.Task:
        job = session.live.get(task_id)
        if job is not None:
            return live_task(session, job)
        row = self._store.task(session.number, task_id)
        if row is None:
            raise not_found(f"task <{session.session_id}/{task_id}> not found")
        return kept_task(session, row)

    def list(self, session: SessionRecord) -> Iterator[types_pb2.Task]:
        """In order, also while they change."""
        after = 0
        while rows := self._store.tasks(session.number, after):
            for row in rows:
                job = session.live.get(row.task_id)
                yield live_task(session, job) if job is not None else kept_task(session, row)
            after = rows[-1].task_id

    async def watch(self, session: SessionRecord, task_id: int) -> AsyncIterator[types_pb2.Task]:
        """Its state whenever that is another, and in the end its end."""
        job = session.live.get(task_id)
        if job is None:
            yield self.get(session, task_id)
            return
        told = TaskState.PENDING
        while True:
            state = job.state
            if state != told:
                yield live_task(session, job)
                told = state
            if job.end is not None:
                if told != job.end:
                    continue
                return
            if self.draining and not job.started:
                raise unavailable("the server is shutting down; the task is kept, and runs when a server takes up this state")
            watcher = self._loop.create_future()
            job.watchers.append(watcher)
            try:
                await watcher
            finally:
                if not watcher.done() or watcher.cancelled():
                    with contextlib.suppress(ValueError):
                        job.watchers.remove(watcher)

    # ------------------------------------------------------------------------------------------------ ended

    def settle(self, job: Job, end: TaskState, *, output: bytes | None = None, message: str | None = None) -> None:
        """It has its end: keep it, then let it be known. The first end counts."""
        if job.settled:
            return
        job.settled = True
        job.output, job.message, job.completion = output, message, max(now(), job.started, job.creation)
        self._keep(job, end)

    def take_in(self) -> None:
        """What the engine has said."""
        self._awake = False
        while self._inbox:
            job, ending = self._inbox.popleft()
            running = job.session.running
            if job.settled or running is None:
                continue
            if job.session.held and ending.error is not None:  # ended with the server, and runs again with the next
                continue
            try:
                outcome = running.outcome(job, ending)
            except Exception as error:
                log.exception("the outcome of task %s/%s could not be read", job.session.session_id, job.task_id)
                self.settle(job, TaskState.FAILED, message=f"the outcome cannot be read: {type(error).__name__}: {error}")
                continue
            if outcome.failure is None:
                self.settle(job, TaskState.SUCCEED, output=outcome.output)
            else:
                self.settle(job, TaskState.FAILED, message=outcome.failure)

    def tell_began(self) -> None:
        """Whoever watches what has begun is told; soon, not at once: most have ended by then."""
        while self.began:
            job = self.began.popleft()
            if job.end is None:
                job.wake()

    def _report(self, job: Job, ending: Ending) -> None:
        """From an engine's thread."""
        self._inbox.append((job, ending))
        if not self._awake:
            self._awake = True
            with contextlib.suppress(RuntimeError):  # the loop is closed: there is nobody to tell
                self._loop.call_soon_threadsafe(self.take_in)

    def _keep(self, job: Job, end: TaskState) -> None:
        session = job.session

        def kept(problem: FlameError | None) -> None:
            if problem is not None:
                self._loop.call_later(_AGAIN_SECONDS, self._keep, job, end)  # nobody is told what could be lost
                return
            job.end = end
            session.counts[end] = session.counts.get(end, 0) + 1
            self.done += 1
            self._drop(job)
            job.wake()

        facts = (job.started, job.completion, job.output, job.message)
        self._store.save_result(session.number, job.task_id, end, *facts, kept)

    def _add(self, job: Job) -> None:
        job.session.live[job.task_id] = job
        self.pending += 1
        self._input_bytes += len(job.input or b"")

    def _drop(self, job: Job) -> None:
        if job.session.live.pop(job.task_id, None) is not None:
            self.pending -= 1
            self._input_bytes -= len(job.input or b"")
