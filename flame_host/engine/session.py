"""A session of the local engine: its queue, its executors, and what is done when one of them is lost."""

from __future__ import annotations

import contextlib
import itertools
import signal
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from concurrent.futures import CancelledError
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from flame_host.api import (
    Application,
    Buffer,
    ClosedError,
    Event,
    FlameError,
    Payload,
    SessionInfo,
    SessionSpec,
    SessionState,
    StateLostError,
    Task,
    TaskTimeoutError,
    WorkerCrashedError,
)
from flame_host.engine.executor import Executor
from flame_host.engine.limits import rlimits
from flame_host.engine.link import caller
from flame_host.engine.scaling import wanted_executors
from flame_host.worker.runtime.channel import CALL, HEADER, HURRY, INLINE_LIMIT, encode

if TYPE_CHECKING:
    from flame_host.engine.local import LocalConnection

_RECALL_AFTER = 0.02  # seconds the running task may keep others waiting behind it
_GATHER = 64  # queued frames worth a write of their own while the worker is busy
_GRACE = 1.0  # seconds between asking a task to stop and killing its worker
_QUIET = 1.0  # seconds without work after which the session is not looked after any more
_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
"""Signals that say nothing against the task, or the start; it is tried again. A segmentation fault does."""
_STARTS = 3  # how often a start is tried again at least, when it was killed from outside


class LocalSession:
    """See `flame_host.api.Session`. ``submit`` is the task path; everything else is called now and then.

    Attributes:
        queue: tasks no worker has yet. solo: send one at a time, because order of blame or time limits need it.
    """

    start_timeout = 120.0

    def __init__(self, spec: SessionSpec, application: Application, connection: LocalConnection) -> None:
        self.session_id = spec.session_id
        self.spec = spec
        self.application = application
        self.queue: deque[Task] = deque()
        self.executors: list[Executor] = []
        self.cancelled = 0
        self.solo = spec.timeout > 0 or bool(spec.isolation)
        self._connection = connection
        self._lock = threading.RLock()
        self._calm = threading.Condition(self._lock)
        self._numbers = itertools.count(1).__next__
        self._executor_numbers = itertools.count(1)
        self._created = time.time()
        self._completed: float | None = None
        self._finished = [0, 0]  # succeeded, failed: of executors that are gone, and of tasks that failed without one
        self._limits: dict[Task, tuple[float, Exception]] = {}
        self._broken: FlameError | None = None
        self._watched = False
        self._quiet_since = 0.0
        self._states: list[tuple[int, tuple[Any, Any, Any]]] = []  # saved after which call; the last one's answer may not have come
        self._killed_starts = 0  # since a worker last got ready
        self._most = min(spec.max_instances or connection.cores, application.max_instances)
        self._rlimits = rlimits(spec.limits)
        if spec.stateful:
            self._most = 1
        for _ in range(min(max(spec.warmup, spec.min_instances), self._most)):
            self._grow()

    # ------------------------------------------------------------------------------------------------ the task path

    def submit(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer] = (), references: Sequence[Payload] = ()) -> None:
        if self._completed is not None or self._broken is not None:
            raise self._refusal()
        number = task.number = self._numbers()
        task.attempts = 0
        name = method.encode()
        if not buffers and not references and len(data) <= INLINE_LIMIT:
            task.frame = HEADER.pack(CALL, 0 if caller.crowded else HURRY, len(name), number, len(name) + len(data)) + name + data
        else:
            parts = [(reference.format, reference.data, reference.buffers) for reference in references]
            task.frame = encode(CALL, number, data, buffers, parts, name)
        queue = self.queue
        queue.append(task)
        if task.options is not None:
            self._heed(task.options)
        for executor in self.executors:
            if not executor.inflight or len(queue) >= _GATHER:
                executor.pump()
        if queue and not self._watched:
            self.look_after()

    def _heed(self, options: Any) -> None:
        """Options of one call. A time limit means that calls are sent one by one from now on, to know when each begins."""
        if getattr(options, "timeout", None):
            self.solo = True
            for executor in self.executors:
                executor.window = min(executor.window, 1)
        if getattr(options, "priority", None):
            waiting = []
            with contextlib.suppress(IndexError):
                while True:
                    waiting.append(self.queue.popleft())
            self.queue.extend(sorted(waiting, key=lambda task: -(getattr(task.options, "priority", None) or 0)))

    def assist(self, task: Task, timeout: float | None = None) -> None:
        for executor in self.executors:
            if executor.running is task:
                executor.assist(task, timeout)
                return

    # ------------------------------------------------------------------------------------------------ looking after

    def look_after(self) -> None:
        """Be ticked from now on; start the first executor if there is none."""
        if self._watched:
            return
        with self._lock:
            if self._watched:
                return
            self._watched = True
            if not self.executors and self._most:
                self._grow()
        self._connection.supervisor.watch(self)

    def tick(self, now: float) -> bool:
        """Called a hundred times a second while there is work."""
        for executor in self.executors:
            waited = now - executor.since
            if len(executor.inflight) > 1 and waited > _RECALL_AFTER:
                executor.recall()
            task = executor.running
            if task is not None:
                self._enforce(executor, task, now)
            executor.pump()
            if executor.parked and waited > _RECALL_AFTER and executor.inflight:
                executor.unpark()
        if self._limits:
            running = {executor.running for executor in self.executors}
            self._limits = {task: limit for task, limit in self._limits.items() if task in running}
        busy = bool(self.queue) or any(executor.inflight for executor in self.executors)
        if self.queue and len(self.executors) < self._most:
            starting = sum(1 for executor in self.executors if not executor.window and not executor.recalling)
            for _ in range(wanted_executors(len(self.queue), len(self.executors), starting, self._most)):
                self._grow()
        if busy:
            self._quiet_since = now
            return True
        if now - self._quiet_since < _QUIET:
            return True
        self._watched = False
        for executor in self.executors:
            executor.unpark()
        if self.queue:  # a task came in between; its submitter saw us still watching
            self.look_after()
        self._connection.supervisor.later(self.application.delay_release, self._release_idle)
        return False

    def _enforce(self, executor: Executor, task: Task, now: float) -> None:
        """Time limits: first asked to stop, then killed."""
        limit = getattr(task.options, "timeout", None) or self.spec.timeout
        if task in self._limits:
            due, reason = self._limits[task]
            if now >= due:
                executor.kill(reason, task)
        elif limit and now - executor.since > limit:
            self._limits[task] = (now + _GRACE, TaskTimeoutError(f"task {task.number} ran longer than {limit:g} s and was stopped"))
            executor.interrupt(task)

    def _grow(self) -> None:
        with self._lock:
            if len(self.executors) < self._most and self._completed is None:
                self.executors = [*self.executors, Executor(self, next(self._executor_numbers))]

    def _release_idle(self) -> None:
        now = time.monotonic()
        with self._lock:
            spare = len(self.executors) - self.spec.min_instances - (1 if self.spec.stateful else 0)
            for executor in self.executors:
                if spare > 0 and executor.idle and now - executor.idle_since >= self.application.delay_release:
                    executor.stop()
                    spare -= 1

    # ------------------------------------------------------------------------------------------------ executors report

    def spawn(self, executor: Executor) -> Any:
        return self._connection.spawn(self, executor)

    def start_order(self, executor: Executor) -> tuple[dict[str, Any], tuple[str, bytes, tuple[Buffer, ...]]]:
        order = self._connection.start_order(self.application)
        order["variables"]["FLAME_SESSION"] = self.session_id
        order["name"] = f"{self.application.name}/{self.session_id}"
        order["instantiate"] = self.spec.instantiate and not self._states
        order["limits"] = self._rlimits
        order["checkpoint"] = self.spec.checkpoint
        order["isolation"] = self.spec.isolation
        common = self.spec.common_data
        data, buffers = self._states[-1][1][:2] if self._states else (common.data, common.buffers)
        return order, (common.format, data, buffers)

    @property
    def python(self) -> str:
        return self._connection.python_of(self.application)

    def last_words(self, executor: Executor) -> str:
        return self._connection.last_words(executor)

    def let_go(self, executor: Executor) -> None:
        self._connection.let_go(executor)

    def task_failed(self, task: Task, report: bytes) -> None:
        """It raised; when that is our own interruption for a time limit, that is the error."""
        limit = self._limits.pop(task, None)
        if limit is not None and isinstance(limit[1], TaskTimeoutError):
            task.fail(limit[1])
        else:
            task.fail_remotely(report)

    def saved(self, number: int, state: tuple[Any, Any, Any]) -> None:
        self._states = [*self._states[-1:], (number, state)]

    def executor_ready(self, executor: Executor) -> None:
        self._observe("executor.ready", f"pid {executor.pid}")
        self._killed_starts = 0
        with self._calm:
            self._calm.notify_all()
        executor.pump()

    def executor_failed(self, executor: Executor, problem: BaseException | bytes) -> None:
        """It did not get ready. While others run they go on; otherwise everything that waits fails with the reason."""
        self._observe("executor.failed")
        with self._lock:
            self._remove(executor)
            others = bool(self.executors)
            killed = executor.process is not None and executor.doomed is None and executor.process.how_it_ended()[2] in _FROM_OUTSIDE
            self._killed_starts += killed
            again = killed and self._killed_starts <= max(_STARTS, self.spec.retries)
        if again:
            self._grow()
        elif not others:
            self._fail_queued(problem)

    def executor_lost(self, executor: Executor, tasks: Sequence[Task], running: int, how: tuple[str, int | None, int | None]) -> None:
        self._observe("executor.lost", how[0])
        unanswered = {task.number for task in tasks}
        self._states = [saved for saved in self._states if saved[0] not in unanswered][-1:]
        again: list[Task] = []
        for index, task in enumerate(tasks):
            error = self._verdict(executor, task, index == running, how)
            if error is None:
                again.append(task)
            else:
                self._finished[1] += 1
                task.fail(error)
            self._limits.pop(task, None)
        if self._forgets and self._completed is None and (executor.replied or running >= 0):
            self._broken = self._state_lost(how)
            self._fail_queued(self._broken)
        with self._lock:
            self._remove(executor)
        self.give_back(again)

    def _verdict(self, executor: Executor, task: Task, was_running: bool, how: tuple[str, int | None, int | None]) -> Exception | None:
        """Why this task fails, or None if it is to be tried again."""
        if was_running and executor.doomed is not None and executor.doomed_task in (None, task):
            return executor.doomed
        if self._completed is not None and not executor.doomed and not was_running:
            return ClosedError(f"session {self.session_id} was closed before task {task.number} ran")
        _, exit_code, number = how
        if self._forgets and (executor.replied or was_running):
            return self._state_lost(how) if not was_running else self._crashed(task, how, "its state went with it")
        if not was_running:
            return None
        task.attempts += 1
        if exit_code is None and (number is None or number in _FROM_OUTSIDE):
            retries = task.options.retries if getattr(task.options, "retries", None) is not None else self.spec.retries
            if task.attempts <= retries:
                return None
            return self._crashed(task, how, f"tried {task.attempts} times", exit_code, number)
        return self._crashed(task, how, "not tried again, for it would do so again", exit_code, number)

    @property
    def _forgets(self) -> bool:
        """Whether the state goes with the worker."""
        return self.spec.stateful and not self.spec.checkpoint

    def _crashed(
        self, task: Task, how: tuple[str, int | None, int | None], remark: str, code: int | None = None, number: int | None = None
    ) -> WorkerCrashedError:
        _, code, number = how
        hint = ""
        if number == signal.SIGKILL:
            hint = "SIGKILL often means out of memory: look at the kernel's log, or give the tasks less to do at once"
        elif number in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
            hint = "a compiled extension crashed; python -X faulthandler shows where"
        return WorkerCrashedError(
            f"the worker {how[0]} while it ran task {task.number} ({remark})", exit_code=code, signal=number, hint=hint
        )

    def _state_lost(self, how: tuple[str, int | None, int | None]) -> StateLostError:
        return StateLostError(
            f"the worker of this stateful service {how[0]}; its state is lost",
            hint="make the service anew with rr.service(...), with checkpoint=1 to have it saved after every call",
        )

    def give_back(self, tasks: Iterable[Task]) -> None:
        """Tasks that did not get their turn go to the head of the queue, in their order."""
        self.queue.extendleft(reversed(list(tasks)))
        if self.queue:
            for executor in self.executors:
                executor.pump()
            self.look_after()
            if not self.executors:
                self._grow()
        with self._calm:
            self._calm.notify_all()

    def _remove(self, executor: Executor) -> None:
        self.executors = [other for other in self.executors if other is not executor]
        self._finished[0] += executor.succeeded
        self._finished[1] += executor.failed
        self._calm.notify_all()

    def _fail_queued(self, problem: BaseException | bytes) -> None:
        while True:
            try:
                task = self.queue.popleft()
            except IndexError:
                return
            if not task.begin():
                self.cancelled += 1
            elif isinstance(problem, bytes):
                task.fail_remotely(problem)
                self._finished[1] += 1
            else:
                task.fail(problem)
                self._finished[1] += 1

    # ------------------------------------------------------------------------------------------------ control

    def cancel(self, task: Task, *, force: bool = False) -> bool:
        for executor in self.executors:
            if task in executor.inflight:
                error = CancelledError(f"task {task.number} was cancelled")
                self._limits[task] = (time.monotonic() + (0.2 if force else float("inf")), error)
                executor.interrupt(task)
                self.look_after()
                return True
        try:
            self.queue.remove(task)
        except ValueError:
            return False
        self.cancelled += 1
        return True

    def grant(self, task: Task, count: int) -> None:
        for executor in self.executors:
            if executor.running is task:
                executor.grant(task, count)

    def info(self) -> SessionInfo:
        executors = self.executors
        return SessionInfo(
            session_id=self.session_id,
            application=self.application.name,
            state=SessionState.OPEN if self._completed is None else SessionState.CLOSED,
            creation_time=self._created,
            completion_time=self._completed,
            pending=len(self.queue) + sum(max(0, len(executor.inflight) - 1) for executor in executors),
            running=sum(1 for executor in executors if executor.inflight),
            succeeded=self._finished[0] + sum(executor.succeeded for executor in executors),
            failed=self._finished[1] + sum(executor.failed for executor in executors),
            cancelled=self.cancelled,
        )

    def close(self, *, wait: bool = True) -> None:
        if self._completed is not None:
            return
        if wait:
            self._drain()
        self._completed = time.time()
        self._observe("session.closed")
        if not wait:
            self._fail_queued(ClosedError(f"session {self.session_id} was closed before the task ran"))
        executors = list(self.executors)
        for executor in executors:
            executor.stop()
        deadline = time.monotonic() + _GRACE
        for executor in executors:
            if not executor.join(max(0.0, deadline - time.monotonic()) if wait else 0.05):
                executor.kill(ClosedError(f"session {self.session_id} was closed"))
                executor.join(5.0)
        # It stays in the list of sessions; what it carried does not stay with it.
        self.spec = replace(self.spec, common_data=Payload(self.spec.common_data.format, b"", ()))
        self._states = []

    def _drain(self) -> None:
        while self.queue or any(executor.inflight for executor in self.executors):
            with self._calm:
                self._calm.wait(0.005)

    def _refusal(self) -> FlameError:
        if self._broken is not None:
            return self._broken
        return ClosedError(f"session {self.session_id} is closed", hint="open a service before the Runner is closed")

    def _observe(self, kind: str, detail: str = "") -> None:
        self._connection.services.observe(Event(kind, time.time(), self.session_id, 0, detail))
