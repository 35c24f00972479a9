"""A session of the cluster: calls wait here, and go out as tasks of the cluster, few or many in each."""

from __future__ import annotations

import asyncio
import itertools
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from flame_engine_flame.dialects import BATCH_BYTES, Dialect, Entry
from flame_engine_flame.pacing import Pace
from flame_host.api import (
    Buffer,
    ClosedError,
    FlameError,
    LogRecord,
    Payload,
    SessionInfo,
    SessionSpec,
    StateLostError,
    Task,
    WorkerError,
    WorkerStartError,
)
from flame_host.api import errors as api_errors
from flame_host.wire.batches import BatchOutcome, decode_outcomes
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2
from flame_host.wire.outcomes import split_report

if TYPE_CHECKING:
    from flame_engine_flame.connection import FlameConnection

log = logging.getLogger(__name__)

_LOOK_SECONDS = 1.0
_CLOSE_SECONDS = 10.0
_KEEP_SECONDS = 20.0
_BIND_FAILED, _GAVE_UP = 1001, 1002
_ENTERING = "on_session_enter failed: "
"""After it a cluster passes on what the application said; our host would say the same the next time."""


class FlameSession:
    """Everything behind an underscore that is not said to be otherwise belongs to the loop's thread."""

    def __init__(self, session_id: str, spec: SessionSpec, dialect: Dialect, connection: FlameConnection) -> None:
        self.session_id = session_id
        self._spec = spec
        self._dialect = dialect
        self._connection = connection
        self._numbers = itertools.count(1)
        self._queue: deque[Entry] = deque()  # any thread appends; the loop's, and `cancel`, take out
        self._waking = False
        self._refusal: FlameError | None = None
        self._pace = Pace(ordered=spec.stateful or (not dialect.gathers and spec.max_instances == 1))
        self._under_way: dict[asyncio.Task[Any], list[Entry]] = {}
        self._watch: asyncio.Task[Any] | None = None
        self._keeper: asyncio.Task[Any] | None = None
        self._executor = ""
        self._answered = 0.0
        self._counts = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self._closed = False
        self._closing = threading.Lock()
        self._calm = threading.Event()
        self._calm.set()
        self._pool: ThreadPoolExecutor | None = None

    # ------------------------------------------------------------------------------------------------ Session, from any thread

    def submit(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer] = (), references: Sequence[Payload] = ()) -> None:
        if self._refusal is not None:
            raise type(self._refusal)(self._refusal.message, hint=self._refusal.hint)
        refusal = self._dialect.refusal(method, (task.options.timeout or 0.0) if task.options else 0.0)
        if refusal is not None:
            raise refusal
        task.number = next(self._numbers)
        task.attempts = 1
        kept = tuple(bytes(buffer) if isinstance(buffer, (memoryview, bytearray)) else buffer for buffer in buffers) if buffers else ()
        self._calm.clear()
        self._queue.append(Entry(task, method, data, kept, references))
        if not self._waking:
            self._waking = True
            self._connection.loop.soon(self._pump)

    def drive(self, task: Task, enough: Callable[[], bool], timeout: float | None = None) -> None:
        """The loop's thread does it all."""

    def cancel(self, task: Task, *, force: bool = False) -> bool:
        """A call that has not been sent is taken back; what a cluster has, it runs: its API has no way to stop a task."""
        for entry in list(self._queue):
            if entry.task is task:
                try:
                    self._queue.remove(entry)
                except ValueError:  # it was just sent
                    return False
                self._counts["cancelled"] += 1
                self._connection.loop.soon(self._look_if_calm)
                return True
        return False

    def grant(self, task: Task, taken: int) -> None:
        """Items come with the end of their generator."""

    def info(self) -> SessionInfo:
        """As the cluster has it; the counts are of calls, where it counts tasks."""
        info = self._connection.get_session(self.session_id)
        return SessionInfo(
            info.session_id, info.application, info.state, info.creation_time, info.completion_time,
            pending=len(self._queue), running=sum(map(len, list(self._under_way.values()))), **self._counts,
        )  # fmt: skip

    def close(self, *, wait: bool = True) -> None:
        with self._closing:
            if self._closed:
                return
            if wait and self._refusal is None:
                self._calm.wait()
            self._refusal = self._refusal or ClosedError(f"session {self.session_id} is closed", hint="open another one")
            self._closed = True
            try:
                if not self._connection.loop.closed:
                    self._connection.loop.run(self._end())
            finally:
                if self._pool is not None:
                    self._pool.shutdown(wait=False)
                self._connection.forget(self)

    # ------------------------------------------------------------------------------------------------ sending

    def _pump(self) -> None:
        """Send what is due. Called when something was queued, something came back, or time has passed."""
        self._waking = False
        while self._queue and len(self._under_way) < self._pace.tasks(time.monotonic(), len(self._queue)):
            entries = self._take()
            if not entries:
                continue
            task = self._connection.loop.task(self._run(entries))
            self._under_way[task] = entries
            task.add_done_callback(self._ended)
        if self._under_way and self._watch is None:
            self._answered = time.monotonic()
            self._watch = self._connection.loop.task(self._look_on())
        if self._keeper is None and self._spec.stateful and self._under_way:
            self._keeper = self._connection.loop.task(self._keep())
        self._look_if_calm()

    def _take(self) -> list[Entry]:
        """The next calls that go together; those cancelled meanwhile are left out."""
        most = self._pace.calls(len(self._queue)) if self._dialect.gathers else 1
        entries: list[Entry] = []
        room = BATCH_BYTES
        while self._queue and len(entries) < most:
            size = self._queue[0].payload_size
            if entries and size > room:
                break
            try:
                entry = self._queue.popleft()
            except IndexError:  # it was cancelled just now
                break
            if entry.task.begin():
                room -= size
                entries.append(entry)
            else:
                self._counts["cancelled"] += 1
        return entries

    def _ended(self, task: asyncio.Task[Any]) -> None:
        entries = self._under_way.pop(task)
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or error is not None:
            reason = error if isinstance(error, Exception) else ClosedError(f"session {self.session_id} was closed before the call ended")
            self._fail(entries, reason)
        self._pump()

    def _fail(self, entries: Sequence[Entry], error: Exception) -> None:
        for entry in entries:
            if not entry.task.done():
                self._counts["failed"] += 1
                entry.task.fail(error)

    def _look_if_calm(self) -> None:
        if not self._queue and not self._under_way:
            self._calm.set()
            if self._queue:  # something came in between
                self._calm.clear()

    async def _run(self, entries: list[Entry]) -> None:
        """One task of the cluster, from its making to the last call's answer."""
        data = await self._beside(self._dialect.needs_cache(entries), self._dialect.write, entries)
        sent = time.monotonic()
        ended = await self._ask(data)
        self._answered = time.monotonic()
        elapsed = self._answered - sent
        if ended.status.state == types_pb2.Succeed:
            output = ended.spec.output if ended.spec.HasField("output") else None
            batch = await self._beside(self._dialect.reads_cache(output), self._dialect.read, output, entries)
            self._settle(entries, batch, elapsed)
        elif ended.status.state == types_pb2.Failed:
            self._failed(entries, await self._connection.frontend.text_of_failure(ended))
        else:
            self._fail(
                entries, ClosedError(f"the cluster has cancelled task {ended.metadata.id}: session {self.session_id} was closed there")
            )

    async def _ask(self, data: bytes) -> types_pb2.Task:
        """Sent once: a session manager that goes away meanwhile may have taken it, and then it may have run."""
        request = frontend_pb2.CreateTaskRequest(task=types_pb2.TaskSpec(session_id=self.session_id, input=data))
        attempts = 1 if self._spec.stateful else 1 + self._spec.retries
        while True:
            try:
                made = await self._connection.frontend.call("CreateTask", request, again=False)
                break
            except WorkerError:
                attempts -= 1
                if attempts <= 0:
                    raise
                await asyncio.sleep(0.5)
        return await self._connection.frontend.watch(self.session_id, made.metadata.id)

    async def _beside(self, waits: bool, function: Callable[..., Any], *args: Any) -> Any:
        """Call what may wait for the cache in a thread of its own."""
        if not waits:
            return function(*args)
        if self._pool is None:
            self._pool = ThreadPoolExecutor(4, thread_name_prefix="flame-cache")
        return await asyncio.get_running_loop().run_in_executor(self._pool, function, *args)

    # ------------------------------------------------------------------------------------------------ answers

    def _settle(self, entries: Sequence[Entry], batch: BatchOutcome, elapsed: float = 0.0) -> None:
        for number, stream, text in batch.logs:
            self._connection.services.log(LogRecord(self.session_id, 0, number, stream, text))
        if self._spec.stateful and batch.executor:
            if self._executor and batch.executor != self._executor:
                return self._lost(entries)
            self._executor = batch.executor
        if entries:
            self._pace.came_back(len(entries), batch.seconds, batch.executor, elapsed)
        for entry, outcome in zip(entries, batch.outcomes, strict=True):
            task = entry.task
            if outcome.items is not None:
                task.open_stream()
                for item in outcome.items:
                    task.stream(item.data, item.buffers)
            content = outcome.content
            if isinstance(content, Payload):
                self._counts["succeeded"] += 1
                task.succeed(content.data, content.buffers)
                continue
            self._counts["failed"] += 1
            if outcome.error is not None:
                task.fail(outcome.error)
            else:
                task.fail_remotely(outcome.report)

    def _failed(self, entries: Sequence[Entry], message: str) -> None:
        """The whole task has failed: of one call, its outcome stands behind the text; of several, none was run to its end."""
        text, attached = split_report(message)
        if attached:
            return self._settle(entries, decode_outcomes(attached))
        self._fail(entries, told_error(text, api_errors.TaskError))

    def _lost(self, entries: Sequence[Entry]) -> None:
        """Another executor has answered: it began with a new state, which nobody asked for."""
        self._refusal = StateLostError(
            f"the executor of session {self.session_id} was lost, and the state of the service with it",
            hint="open the service again; with checkpoint= its state would be saved within the node, not across nodes",
        )
        self._fail(entries, self._refusal)
        self._fail_queued(self._refusal)

    def _fail_queued(self, error: Exception) -> None:
        entries = []
        while self._queue:
            entries.append(self._queue.popleft())
        self._fail([entry for entry in entries if entry.task.begin()], error)

    # ------------------------------------------------------------------------------------------------ looking on

    async def _look_on(self) -> None:
        """While something is under way: send more as time passes, and ask why when nothing comes back."""
        try:
            ticks = 0
            while self._under_way:
                await asyncio.sleep(0.1)
                ticks += 1
                self._pump()
                if time.monotonic() - self._answered > _LOOK_SECONDS and ticks % 10 == 0:
                    await self._look_for_reasons()
        finally:
            self._watch = None

    async def _look_for_reasons(self) -> None:
        """A cluster that cannot start executors of a session leaves its tasks pending for ever, and tells why among its events."""
        try:
            found = await self._connection.frontend.call("GetSession", frontend_pb2.GetSessionRequest(session_id=self.session_id))
        except FlameError as error:
            self._give_up(error)
            return
        reasons = [event.message for event in found.status.events if event.code == _BIND_FAILED]
        gave_up = any(event.code == _GAVE_UP for event in found.status.events)
        if found.status.state == types_pb2.Closed:
            self._give_up(ClosedError(f"session {self.session_id} was closed in the cluster"))
        elif reasons:
            reason = told_error(_reason_of(reasons[-1]), WorkerStartError)
            if gave_up or (self._dialect.gathers and _ENTERING in reasons[-1] and not isinstance(reason, api_errors.WorkerCrashedError)):
                self._give_up(reason)

    def _give_up(self, error: FlameError) -> None:
        self._refusal = error
        entries = [entry for taken in self._under_way.values() for entry in taken]
        self._fail(entries, error)
        self._fail_queued(error)
        for task in list(self._under_way):
            task.cancel()

    async def _keep(self) -> None:
        """Executors that have nothing to do are taken away, and their state with them: a task without calls keeps them."""
        while True:
            await asyncio.sleep(_KEEP_SECONDS)
            if time.monotonic() - self._answered > _KEEP_SECONDS and not self._under_way:
                try:
                    ended = await self._ask(self._dialect.write(()))
                    self._answered = time.monotonic()
                    if ended.status.state == types_pb2.Succeed and ended.spec.HasField("output"):
                        self._settle((), self._dialect.read(ended.spec.output, ()))
                except FlameError as error:
                    log.warning("session %s: %s", self.session_id, error)

    # ------------------------------------------------------------------------------------------------ the end

    async def _end(self) -> None:
        if self._keeper is not None:
            self._keeper.cancel()
        self._fail_queued(self._refusal or ClosedError(f"session {self.session_id} was closed before the call ran"))
        running = list(self._under_way)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        request = frontend_pb2.CloseSessionRequest(session_id=self.session_id)
        end = time.monotonic() + _CLOSE_SECONDS
        while True:
            try:
                await self._connection.frontend.call("CloseSession", request, patience=_CLOSE_SECONDS)
                break
            except api_errors.SessionNotFoundError:
                break
            except FlameError as error:
                if time.monotonic() > end:
                    log.warning(
                        "session %s stays open in the cluster: %s  → close it when its tasks have ended:  flmctl close -s %s",
                        self.session_id, error.message, self.session_id,
                    )  # fmt: skip
                    break
                await asyncio.sleep(0.25)
        if self._connection.objects.used:
            await self._beside(True, self._delete_objects)

    def _delete_objects(self) -> None:
        try:
            self._connection.objects.delete(f"{self._spec.application}/{self.session_id}")
        except FlameError as error:
            log.warning("what session %s has put into the cache stays there: %s", self.session_id, error.message)


def _reason_of(event: str) -> str:
    """What our host said, out of all that a cluster puts around it."""
    _, mark, said = event.partition(_ENTERING)
    return said if mark else event


def told_error(text: str, default: type[FlameError]) -> FlameError:
    """The error that a text begins with the name of, if it is one of ours; else the default one with the text."""
    name, colon, rest = text.partition(": ")
    kind = getattr(api_errors, name, None) if colon and name.isidentifier() else None
    if isinstance(kind, type) and issubclass(kind, FlameError):
        message, _, hint = rest.partition("\n  → ")
        error = kind.__new__(kind)
        FlameError.__init__(error, message, hint=hint)
        return error
    return default(text)
