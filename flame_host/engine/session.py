"""A session of the local engine: its queue, its executors, and what is done when one of them is lost.

What always holds, so that no task waits for nobody: while there is work (something queued or in flight), the session is watched, and
the supervisor ticks it; a tick offers what is queued to every executor, starts one where none is, and has the loop read where nobody
does. The quicker ways (a submitter sends for itself, a caller reads for itself, an answer lets the next call go) only come before
that; none of them is relied on. See ``docs/explanation/task-path.md``.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
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
    Task,
)
from flame_host.engine.executor import Executor
from flame_host.engine.failures import Loss, crashed_at_once, failure_of_start, from_outside, state_lost, verdict
from flame_host.engine.limits import rlimits
from flame_host.engine.loop import weakly
from flame_host.engine.scaling import StartRecord, wanted_executors
from flame_host.engine.spinning import calling_thread
from flame_host.engine.stall import StallWatch
from flame_host.engine.time_limits import TimeLimits
from flame_host.worker.process import WorkerExit
from flame_host.worker.runtime.channel import CALL, HEADER, INLINE_LIMIT, SPIN, encode

if TYPE_CHECKING:
    from flame_host.api import CallOptions
    from flame_host.engine.local import WorkerConnection

_RECALL_AFTER = 0.02  # seconds the running task may keep others waiting behind it
_GATHER = 64  # queued frames worth a write of their own while the worker is busy
_GRACE = 1.0  # seconds for a worker to end when it is told to
_DEATH = 5.0  # seconds for one to end when it is killed
_QUIET = 1.0  # seconds without work after which the session is not looked after any more


class LocalSession:
    """See `flame_host.api.Session`. ``submit`` is the task path; everything else is called now and then.

    Locks, outermost first: ``_lock`` (executors, books) or ``_calm``, an executor's ``_life``, a link's ``_sending``, an outbox's,
    a future's. No task is told anything while ``_lock`` is held.

    Attributes:
        queue: tasks no worker has yet. serial: send one at a time, because order of blame or time limits need it.
        draining: somebody waits in `close` for the work to be done. comebacks: how often tasks have come back from a worker; counted
            before they do.
    """

    start_timeout = 120.0

    def __init__(self, spec: SessionSpec, application: Application, connection: WorkerConnection) -> None:
        self.session_id = spec.session_id
        self.spec = spec
        self.application = application
        self.queue: deque[Task] = deque()
        self.executors: list[Executor] = []
        self.cancelled = 0
        self.serial = spec.timeout > 0 or bool(spec.isolation)
        self.draining = False
        self.comebacks = 0
        self.io = connection.io
        self.call = connection.supervisor.call
        self.later = connection.supervisor.later
        self.observe = connection.services.observe
        self._connection = connection
        self._lock = threading.RLock()
        self._calm = threading.Condition(threading.RLock())
        self._numbers = itertools.count(1).__next__
        self._executor_numbers = itertools.count(1)
        self._created = time.time()
        self._completed: float | None = None
        self._finished = [0, 0]  # succeeded, failed: of executors that are gone, and of tasks that failed without one
        self._limits = TimeLimits()
        self._refusal: FlameError | None = None
        self._watched = False
        self._quiet_since = 0.0
        self._states: list[tuple[int, tuple[Any, Any, Any]]] = []  # saved after which call; the last one's answer may not have come
        self._starts = StartRecord(spec.retries)
        self._stall = StallWatch(self)
        self._most = min(spec.max_instances or connection.cores, application.max_instances)
        self._stuck: list[int] = []  # what `widen` has seen: how many tasks each executor had begun
        self._rlimits = rlimits(spec.limits)
        if spec.stateful:
            self._most = 1
        for _ in range(min(max(spec.warmup, spec.min_instances), self._most)):
            self._grow()
        if self.executors:
            self.look_after()

    # ------------------------------------------------------------------------------------------------ the task path

    def submit(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer] = (), references: Sequence[Payload] = ()) -> None:
        if self._refusal is not None:
            raise self._refusal.with_traceback(None)
        number = task.number = self._numbers()
        task.attempts = 0
        name = method.encode()
        if not buffers and not references and len(data) <= INLINE_LIMIT:
            flags = 0 if calling_thread.crowded else SPIN
            task.frame = HEADER.pack(CALL, flags, len(name), number, len(name) + len(data)) + name + data
        else:
            parts = [(reference.format, reference.data, reference.buffers) for reference in references]
            task.frame = encode(CALL, number, data, buffers, parts, name)
        queue = self.queue
        queue.append(task)
        if task.options is not None:
            self._apply_call_options(task, task.options)
        for executor in self.executors:
            if not executor.inflight or len(queue) >= _GATHER:
                executor.pump()
        if not self._watched:
            self.look_after()
        if self._refusal is not None:  # closed, or broken, since the first line: whoever did that may have looked before we queued
            self._fail_queued(self._refusal)

    def _apply_call_options(self, task: Task, options: CallOptions) -> None:
        """A time limit means that calls are sent one by one from now on, to know when each begins."""
        if options.timeout and not self.serial:
            self.serial = True
            for executor in self.executors:
                self.io.call(executor.narrow)
        if options.priority:
            try:
                self.queue.remove(task)
            except ValueError:  # a worker has it already
                return
            ahead = [other for other in list(self.queue) if other.options is not None and (other.options.priority or 0) >= options.priority]
            self.queue.insert(len(ahead), task)

    def drive(self, task: Task, enough: Callable[[], bool], timeout: float | None = None) -> None:
        for executor in self.executors:
            if executor.running is task:
                # Only for the one call there is: with others behind it, answers come by the lot, and the loop is as quick.
                if len(executor.inflight) == 1:
                    executor.drive(task, enough, timeout)
                return

    # ------------------------------------------------------------------------------------------------ looking after

    def look_after(self) -> None:
        """Be ticked from now on. The first tick comes at once, and starts the first executor if there is none."""
        if self._watched:
            return
        with self._lock:
            if self._watched:
                return
            self._quiet_since = time.monotonic()
            self._connection.supervisor.watch(self)  # first: an interrupt in between must not leave it believed watched
            self._watched = True

    def tick(self, now: float) -> bool:
        """Called a hundred times a second while there is work."""
        for executor in self.executors:
            self._look_at(executor, now)
        if self._limits:
            self._limits.keep_only(set().union(*(executor.tasks() for executor in self.executors)))
        self._scale(now)
        if self._has_work():
            self._quiet_since = now
            self._stall.look(now)
            return True
        if self.draining:
            self.settled()
        if now - self._quiet_since < _QUIET:
            return True
        self._watched = False
        if self._has_work():  # it came in between; its submitter saw us still watching
            self.look_after()
        self.later(self.application.delay_release, weakly(self._release_idle))
        return False

    def _look_at(self, executor: Executor, now: float) -> None:
        if not executor.attached:
            return
        if executor.replied:
            self._starts.succeeded()  # not when it says that it is ready: it may end of what it does next, and so may the next one
        waited = now - executor.since
        if len(executor.inflight) > 1 and waited > _RECALL_AFTER + executor.latency:
            executor.recall()
        task = executor.running
        if task is not None:
            limit = (task.options.timeout if task.options is not None else None) or self.spec.timeout
            self._limits.enforce(executor, task, limit, waited, now)
        executor.pump()
        executor.heal()

    def widen(self, most: int) -> None:
        """One executor more than the machine has cores, up to ``most``, if all of them have been in tasks since the last call.

        For sessions without a maximum of their own whose tasks wait for other tasks of theirs. Called by whoever owns the session,
        now and then.
        """
        executors = self.executors
        began = [executor.process.begun for executor in executors if executor.ready and executor.process is not None and executor.inflight]
        if self.queue and len(began) == len(executors) >= self._most and began == self._stuck and self._most < most:
            self._most += 1
            self._stuck = []
        else:
            self._stuck = began

    def _has_work(self) -> bool:
        # In this order, which is a task's. One that goes the other way meanwhile is in neither where we look: that it moved is seen.
        comebacks = self.comebacks
        return bool(self.queue) or any(executor.has_work for executor in self.executors) or self.comebacks != comebacks

    def _scale(self, now: float) -> None:
        executors = self.executors
        if not self.queue:
            self._connection.shares.leave(self)
        elif self._starts.may_start(now, bool(executors)):
            starting = sum(1 for executor in executors if executor.starting)
            for _ in range(wanted_executors(len(self.queue), len(executors), starting, self._most)):
                self._grow()

    def _grow(self) -> None:
        with self._lock:
            if len(self.executors) >= self._most or self._completed is not None:
                return
            share = None
            if self.spec.resources is not None:
                share = self._connection.shares.take(self, self.spec.resources, self.spec.priority)
                if share is None:  # others have it; the next tick asks again
                    self.call(partial(self._connection.make_room, self))  # not here, with our lock: it takes the others'
                    return
            self.executors = [*self.executors, Executor(self, next(self._executor_numbers), share)]

    def give_up_idle(self) -> None:
        """Somebody waits for what idle workers of this session have."""
        if self.spec.resources is not None:
            self._release_idle(0.0)

    def _release_idle(self, after: float | None = None) -> None:
        now, after = time.monotonic(), self.application.delay_release if after is None else after
        with self._lock:
            spare = len(self.executors) - self.spec.min_instances - (1 if self.spec.stateful else 0)
            for executor in self.executors:
                if spare > 0 and executor.idle and now - executor.idle_since >= after:
                    executor.stop()
                    spare -= 1

    # ------------------------------------------------------------------------------------------------ executors ask

    def spawn(self, executor: Executor) -> Any:
        return self._connection.launcher.spawn(self, executor)

    def start_order(self, executor: Executor) -> tuple[dict[str, Any], tuple[str, bytes, tuple[Buffer, ...]]]:
        order = self._connection.launcher.start_order(self.application)
        order["variables"] = {**order.get("variables", {}), "FLAME_SESSION": self.session_id}
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
        return self._connection.launcher.python_of(self.application)

    def release_worker(self, executor: Executor) -> str:
        return self._connection.launcher.release(executor)

    # ------------------------------------------------------------------------------------------------ executors report

    def task_failed(self, task: Task, report: bytes) -> None:
        """It raised; when that is our own interruption for a time limit, that is the error."""
        overrun = self._limits.ended(task)
        if overrun is not None:
            task.fail(overrun)
        else:
            task.fail_remotely(report)

    def saved(self, number: int, state: tuple[Any, Any, Any]) -> None:
        self._states = [*self._states[-1:], (number, state)]

    def executor_ready(self, executor: Executor) -> None:
        self._tell("executor.ready", f"pid {executor.pid}")

    def executor_failed(self, executor: Executor, problem: BaseException | bytes, how: WorkerExit) -> None:
        """It did not get ready. While others run they go on; otherwise everything that waits fails with the reason, now."""
        self._tell("executor.failed", failure_of_start(problem))
        with self._lock:
            self._remove(executor)
            others = any(other.ready for other in self.executors)
            by_chance = executor.process is not None and executor.kill_reason is None and how.signal is not None and from_outside(how)
            again = self._starts.failed(time.monotonic(), by_chance=by_chance)
        if again:
            self._grow()
        elif not others:
            self._fail_queued(problem)
        self.settled()

    def executor_lost(self, executor: Executor, tasks: Sequence[Task], running: int, how: WorkerExit) -> None:
        self._tell("executor.lost", how.words)
        unanswered = {task.number for task in tasks}
        self._states = [saved for saved in self._states if saved[0] not in unanswered][-1:]
        useless = self._useless_start(executor, how)
        again: list[Task] = []
        failed: list[tuple[Task, Exception]] = []
        for index, task in enumerate(tasks):
            error = self._limits.cancelled(task) if index != running else None
            error = error or useless or verdict(self._loss(executor, task, index == running), how)
            if error is None:
                again.append(task)
            else:
                failed.append((task, error))
            self._limits.ended(task)
        if self._forgets and self._completed is None and (executor.replied or running >= 0):
            self._refusal = state_lost(how)
        self.comebacks += 1
        self.queue.extendleft(reversed(again))  # before they leave the executor: `_has_work` must see them somewhere
        for task, error in failed:
            task.fail(error)
        with self._lock:
            self._finished[1] += len(failed)
            self._remove(executor)
        if useless is not None:
            self._fail_queued(useless)
        self.requeued(again)

    def _useless_start(self, executor: Executor, how: WorkerExit) -> Exception | None:
        """It ended of itself before it had begun a call, and so would the next: why what waits fails, if nobody else could do it."""
        if executor.has_begun or executor.was_told_to_end:
            return None
        again = self._starts.failed(time.monotonic(), by_chance=from_outside(how))
        others = any(other.ready for other in self.executors if other is not executor)
        return None if again or others else crashed_at_once(how)

    def _loss(self, executor: Executor, task: Task, running: bool) -> Loss:
        task.attempts += running
        options = task.options
        return Loss(
            number=task.number,
            running=running,
            attempts=task.attempts,
            retries=self.spec.retries if options is None or options.retries is None else options.retries,
            items=executor.streamed == task.number,
            forgets=self._forgets,
            used=running or executor.replied > 0,
            blamed=executor.kill_reason if running and executor.kill_task in (None, task) else None,
            closed=self.session_id if self._completed is not None else "",
        )

    @property
    def _forgets(self) -> bool:
        """Whether the state goes with the worker."""
        return self.spec.stateful and not self.spec.checkpoint

    def requeued(self, tasks: Sequence[Task]) -> None:
        """These did not get their turn, and are at the head of the queue again."""
        for task in tasks:
            reason = self._limits.cancelled(task)
            if reason is not None and self._withdraw(task):
                self._limits.ended(task)
                task.fail(reason)
        if self._refusal is not None:
            self._fail_queued(self._refusal)
        for executor in self.executors:
            executor.pump()
        self.look_after()
        self.settled()

    def settled(self) -> None:
        if self.draining and not self._has_work():
            with self._calm:
                self._calm.notify_all()

    def _remove(self, executor: Executor) -> None:
        if executor.share is not None and executor in self.executors:
            self._connection.shares.give_back(executor.share)
        self.executors = [other for other in self.executors if other is not executor]
        self._finished[0] += executor.succeeded
        self._finished[1] += executor.failed

    def _withdraw(self, task: Task) -> bool:
        try:
            self.queue.remove(task)
        except ValueError:
            return False
        return True

    def _fail_queued(self, problem: BaseException | bytes) -> None:
        while True:
            try:
                task = self.queue.popleft()
            except IndexError:
                break
            if not task.begin():
                self.cancelled += 1
                continue
            self._finished[1] += 1
            if isinstance(problem, bytes):
                task.fail_remotely(problem)
            else:
                task.fail(problem)
        self.settled()

    # ------------------------------------------------------------------------------------------------ control

    def cancel(self, task: Task, *, force: bool = False) -> bool:
        for executor in self.executors:
            if executor.has(task):
                self._limits.cancel(task, force=force)
                executor.interrupt(task)
                self.look_after()
                return True
        if not self._withdraw(task):
            return False
        self.cancelled += 1
        self.settled()
        return True

    def grant(self, task: Task, taken: int) -> None:
        for executor in self.executors:
            if executor.running is task:
                executor.grant(task, taken)

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

    def forget(self, reason: FlameError) -> None:
        """In a forked child, which has none of our threads: whatever is asked of it is refused, and whoever waits is told."""
        tasks = [*self.queue, *(task for executor in self.executors for task in executor.inflight)]
        self._completed, self._refusal = time.time(), reason
        self.queue.clear()
        self.executors = []
        for task in tasks:
            task.fail(reason)

    def describe(self) -> str:
        """Its state and its executors', for somebody who wonders why nothing happens."""
        kind = "stateful" if self.spec.stateful else "stateless"
        reason = f", refuses calls: {self._refusal}" if self._refusal is not None else ""
        lines = [
            f"session {self.session_id} ({kind}, at most {self._most} executors): queue {len(self.queue)}"
            f"{', watched' if self._watched else ''}{', draining' if self.draining else ''}{reason}"
        ]
        return "\n  ".join(lines + [executor.describe() for executor in self.executors])

    def close(self, *, wait: bool = True) -> None:
        if self._completed is not None:
            return
        if wait and not self._connection.is_own_thread():
            self._drain()
        closed = ClosedError(f"session {self.session_id} is closed", hint="open a service before the Runner is closed")
        with self._lock:
            if self._completed is not None:
                return
            self._completed = time.time()
            self._refusal = closed
            executors = list(self.executors)
        self._tell("session.closed")
        self._connection.shares.leave(self)
        self._fail_queued(ClosedError(f"session {self.session_id} was closed before the task ran"))
        self._end(executors, wait)
        # It stays in the list of sessions; what it carried does not stay with it.
        self.spec = replace(self.spec, common_data=Payload(self.spec.common_data.format, b"", ()))
        self._states = []

    def _end(self, executors: Sequence[Executor], wait: bool) -> None:
        """End the workers. Only those that have a process are waited for: a start that is under way finds out by itself."""
        killed = ClosedError(f"session {self.session_id} was closed")
        for executor in executors:
            if wait:
                executor.stop()
            else:
                executor.kill(killed)
        if self._connection.is_own_thread():  # which could not see them end while it waits
            return
        deadline = time.monotonic() + (_GRACE if wait else _DEATH)
        for executor in executors:
            if executor.process is not None and not executor.gone.wait(max(0.0, deadline - time.monotonic())):
                executor.kill(killed)
                executor.gone.wait(_DEATH)

    def _drain(self) -> None:
        """Wait until there is no work. Ended by whoever finishes the last of it, and by the next tick should that one not see us."""
        with self._calm:
            self.draining = True
        while True:
            self.look_after()
            with self._calm:
                if not self._has_work() or self._completed is not None:
                    return
                self._calm.wait()

    def _tell(self, kind: str, detail: str = "") -> None:
        self.observe(Event(kind, time.time(), self.session_id, 0, detail))
