"""The cluster: what is there, what may be done with it, and what is made of it. All of it happens in one event loop.

What a caller is told has been kept before (`Store.write`). What becomes of tasks is in `tasks`.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Callable
from typing import Any

from flame_host.api import Event, FlameError, TaskState
from flame_host.serve.defaults import TEMPLATE, completed, default_applications, our_template
from flame_host.serve.executors import Executors
from flame_host.serve.jobs import Job, now
from flame_host.serve.records import (
    BIND_FAILED,
    DEFAULT_RESOURCES,
    ApplicationRecord,
    SessionRecord,
    session_of,
)
from flame_host.serve.refusals import Refusal, exists, full, internal, invalid, not_found, unavailable
from flame_host.serve.running import Opening, Running
from flame_host.serve.settings import Limits
from flame_host.serve.store import SessionRow, Store
from flame_host.serve.tasks import Tasks
from flame_host.wire.flame.v1 import types_pb2

log = logging.getLogger(__name__)

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_SESSION_ID = re.compile(r"[^/\\\x00-\x1f]{1,253}")
_TICK_SECONDS = 0.05
_STUCK_TICKS = 10


class Cluster:
    """Made in the event loop it lives in.

    Attributes:
        draining: nothing new is taken on.
    """

    def __init__(self, store: Store, executors: Executors, limits: Limits, node: str) -> None:
        self.applications: dict[str, ApplicationRecord] = {}
        self.sessions: dict[str, SessionRecord] = {}
        self.limits = limits
        self.draining = False
        self.tasks = Tasks(store, limits, self._submit)
        self._store = store
        self._executors = executors
        self._node = node
        self._loop = asyncio.get_running_loop()
        self._closed: deque[SessionRecord] = deque()
        self._last_session = 0
        self._background: set[asyncio.Task[Any]] = set()
        self._endings: dict[str, set[asyncio.Task[Any]]] = {}
        self._template = ApplicationRecord(TEMPLATE, our_template(executors.host.capabilities()), now())
        self._forget_sink = executors.host.add_event_sink(self._on_event)

    # ------------------------------------------------------------------------------------------------ life

    def restore(self) -> None:
        """Take up what an earlier server has left: what had not ended runs again."""
        for name, spec, creation in self._store.applications():
            self.applications[name] = ApplicationRecord(name, types_pb2.ApplicationSpec.FromString(spec), creation)
        for name, default in default_applications().items():
            if name not in self.applications:
                record = self.applications[name] = ApplicationRecord(name, default, now())
                self._store.save_application(name, default.SerializeToString(), record.creation)
        for row in self._store.sessions():
            self._restore_session(row)

    def _restore_session(self, row: SessionRow) -> None:
        session = session_of(row, self.tasks.began)
        session.counts = self._store.counts(row.number)
        session.last_task = self._store.last_task(row.number)
        self.sessions[session.session_id] = session
        self._last_session = max(self._last_session, session.number)
        jobs = [self.tasks.adopt(session, task) for task in self._store.unfinished(row.number)]
        if not session.is_open:
            self._closed.append(session)
            for job in jobs:  # it was closed, and the server ended before they were cancelled
                self.tasks.settle(job, TaskState.CANCELLED)
            return
        for job in jobs:
            self._submit(job)
        if session.spec.min_instances:
            self._open(session)

    async def watch(self) -> None:
        """Look after it until cancelled: what has no moment of its own."""
        ticks = 0
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.tasks.tell_began()
            ticks += 1
            if ticks % _STUCK_TICKS == 0:
                for session in self.sessions.values():
                    if session.is_open and session.running is not None and session.live and not session.spec.HasField("max_instances"):
                        session.running.engine.widen(self.limits.executors)

    async def drain(self, seconds: float) -> int:
        """Take on nothing new, let what runs end; returns how many tasks are left for another server."""
        self.draining = self.tasks.draining = True
        for session in self.sessions.values():
            session.held = True
            for job in session.live.values():
                job.wake()  # whoever watches one that waits is told that it goes on waiting
        until = self._loop.time() + seconds
        while self._loop.time() < until and any(
            job.started and not job.settled for session in self.sessions.values() for job in session.live.values()
        ):
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.02)  # what has ended last is written
        return self.tasks.pending

    def close(self) -> None:
        self._forget_sink()
        for session in self.sessions.values():
            for job in session.live.values():
                job.wake()

    # ------------------------------------------------------------------------------------------------ applications

    async def register(self, name: str, spec: types_pb2.ApplicationSpec) -> None:
        self._check_taking()
        if not _NAME.fullmatch(name) or ".." in name:
            raise internal(f"Invalid application name '{name:.100}': letters, digits, '.', '_' and '-', 253 at most")
        if name in self.applications:
            raise internal(f"Application '{name}' already exists")
        record = self.applications[name] = ApplicationRecord(name, completed(spec), now())
        try:
            await asyncio.shield(self._store.save_application(name, record.spec.SerializeToString(), record.creation))
        except FlameError:
            del self.applications[name]
            raise

    async def update(self, name: str, spec: types_pb2.ApplicationSpec) -> None:
        self._check_taking()
        record = self._registered(name)
        self._check_unused(name)
        spec = completed(spec)
        await asyncio.shield(self._store.save_application(name, spec.SerializeToString(), record.creation))
        record.spec = spec

    async def unregister(self, name: str) -> None:
        record = self._registered(name)
        self._check_unused(name)
        del self.applications[name]
        try:
            await asyncio.shield(self._store.forget_application(name))
        except FlameError:
            self.applications[name] = record
            raise
        self._spawn(self._forget(name))

    async def _forget(self, name: str) -> None:
        """What the engine has of it, when its last executors are gone; unless somebody has registered it again."""
        while self._endings.get(name):
            await asyncio.wait(list(self._endings[name]))
        if name not in self.applications:
            self._endings.pop(name, None)
            self._executors.forget(name)

    def application(self, name: str) -> ApplicationRecord:
        """One by its name; our own client's template as well, which nobody has registered."""
        return self._template if name == TEMPLATE and name not in self.applications else self._registered(name)

    def _registered(self, name: str) -> ApplicationRecord:
        if name not in self.applications:
            raise not_found(f"application <{name:.253}> not found")
        return self.applications[name]

    def _check_unused(self, name: str) -> None:
        used = sum(1 for session in self.sessions.values() if session.is_open and session.spec.application == name)
        if used:
            raise internal(f"Application '{name}' has open sessions ({used}); close them first")

    # ------------------------------------------------------------------------------------------------ sessions

    async def create_session(self, session_id: str, spec: types_pb2.SessionSpec) -> SessionRecord:
        self._check_taking()
        if session_id in self.sessions:
            raise exists(f"session <{session_id}> already exists")
        if not _SESSION_ID.fullmatch(session_id):
            raise invalid(f"{session_id!r:.300} is no session id: up to 253 characters without '/'")
        if spec.application not in self.applications:
            raise not_found(f"application <{spec.application:.253}> not found")
        if spec.HasField("max_instances") and spec.max_instances < spec.min_instances:
            raise invalid(f"max_instances {spec.max_instances} is less than min_instances {spec.min_instances}")
        if sum(session.is_open for session in self.sessions.values()) >= self.limits.sessions:
            raise full(f"there are {self.limits.sessions} open sessions, which is this server's limit; close some")
        whole = types_pb2.SessionSpec()
        whole.CopyFrom(spec)
        whole.batch_size = 1
        if not whole.HasField("resreq"):
            whole.ClearField("resreq")
        self._last_session += 1
        session = SessionRecord(self._last_session, session_id, whole, now(), self.tasks.began)
        self.sessions[session_id] = session
        session.saved = self._store.save_session(session.row())
        try:
            await asyncio.shield(session.saved)
        except FlameError:
            del self.sessions[session_id]
            raise
        if spec.min_instances:
            self._open(session)
        return session

    async def open_session(self, session_id: str, spec: types_pb2.SessionSpec | None) -> SessionRecord:
        session = self.sessions.get(session_id)
        if session is None:
            if spec is None:
                raise not_found(f"session <{session_id:.253}> not found")
            return await self.create_session(session_id, spec)
        if not session.is_open:
            raise invalid(f"session <{session_id}> is not open")
        if spec is not None:
            difference = _difference(session.spec, spec)
            if difference:
                raise invalid(f"session <{session_id}> spec mismatch: {difference}")
        if session.saved is not None:
            await asyncio.shield(session.saved)
        return session

    async def close_session(self, session_id: str) -> SessionRecord:
        session = self.session(session_id)
        if not session.is_open:
            return session
        if session.running is not None and any(job.started and not job.settled for job in session.live.values()):
            await self._settle_down(session)
        if not session.is_open:
            return session
        session.completion = now()
        try:
            await asyncio.shield(self._store.save_session(session.row()))
        except FlameError:
            session.completion = None
            raise
        for job in list(session.live.values()):
            self.tasks.settle(job, TaskState.CANCELLED)
        running, session.running = session.running, None
        if running is not None:
            self._end(session, running)
        self._closed.append(session)
        self._forget_oldest()
        return session

    async def _settle_down(self, session: SessionRecord) -> None:
        """What the engine has sent ahead to a worker ends, or comes back, in a moment; what really runs, runs on."""
        assert session.running is not None
        for _ in range(5):
            if not session.running.engine.info().running:
                return
            await asyncio.sleep(0.02)
        if session.running is not None and session.running.engine.info().running:
            raise internal("Cannot close session with running tasks")

    async def delete_session(self, session_id: str) -> SessionRecord:
        session = self.session(session_id)
        if session.is_open:
            raise internal(f"Cannot delete open session <{session_id}>; close it first")
        if session.live:
            raise internal(f"Cannot delete session <{session_id}> with tasks that have not ended")
        await asyncio.shield(self._store.forget_session(session.number))
        self.sessions.pop(session_id, None)
        with contextlib.suppress(ValueError):
            self._closed.remove(session)
        return session

    def session(self, session_id: str) -> SessionRecord:
        session = self.sessions.get(session_id)
        if session is None:
            raise not_found(f"session <{session_id:.253}> not found")
        return session

    def _forget_oldest(self) -> None:
        """Closed sessions are kept for whoever wants to look, but not for ever."""
        while len(self._closed) > self.limits.kept_sessions and not self._closed[0].live:
            session = self._closed.popleft()
            self.sessions.pop(session.session_id, None)
            self._store.forget_session(session.number)
            with contextlib.suppress(FlameError):
                self._executors.objects.delete(f"{session.spec.application}/{session.session_id}")

    def _end(self, session: SessionRecord, running: Running) -> None:
        """Its executors go, beside everything else."""
        endings = self._endings.setdefault(session.spec.application, set())
        ending = self._spawn(asyncio.to_thread(self._ended, running))
        endings.add(ending)
        ending.add_done_callback(endings.discard)

    def _ended(self, running: Running) -> None:
        try:
            running.close()
        except Exception:
            log.exception("a session did not end well")
        self._executors.connection.forget_session(running.engine.session_id)

    # ------------------------------------------------------------------------------------------------ tasks

    def create_task(self, session_id: str, data: bytes | None, then: Callable[[types_pb2.Task | FlameError], None]) -> None:
        """See `Tasks.create`."""
        self._check_taking()
        session = self.session(session_id)
        if not session.is_open:
            raise invalid(f"Cannot create task in closed session <{session_id}>")
        self.tasks.create(session, data, then)

    # ------------------------------------------------------------------------------------------------ to the engine and back

    def _submit(self, job: Job) -> None:
        session = job.session
        if session.running is None:
            session.waiting.append(job)
            self._open(session)
            return
        try:
            session.running.submit(job)
        except FlameError as error:
            self.tasks.settle(job, TaskState.FAILED, message=str(error))

    def _open(self, session: SessionRecord) -> None:
        application = self.applications.get(session.spec.application)
        if application is None:  # lost with a damaged state
            waiting, session.waiting = session.waiting, []
            for job in waiting:
                self.tasks.settle(job, TaskState.FAILED, message=f"application <{session.spec.application}> is registered no more")
            return
        if application.spec.shim == types_pb2.Wasm:  # as in any cluster without executors of that kind: the tasks wait for one
            if not session.events:
                self._bind_failed(session, "no executor here has shim Wasm; its tasks wait until it is closed")
            return
        if session.running is None and session.opening is None and not self.draining:
            session.opening = self._spawn(self._opened(session))

    async def _opened(self, session: SessionRecord) -> None:
        application = self.applications[session.spec.application]
        opening = Opening(session.session_id, application.name, application.spec, session.spec)
        try:
            running = await asyncio.to_thread(self._executors.open, opening)
        except Exception as error:
            session.opening = None
            if not isinstance(error, FlameError):
                log.exception("session %s could not be opened", session.session_id)
            self._bind_failed(session, f"{type(error).__name__}: {error}")
            waiting, session.waiting = session.waiting, []
            for job in waiting:
                self.tasks.settle(job, TaskState.FAILED, message=f"the session's program cannot run: {error}")
            return
        session.opening = None
        if not session.is_open:
            self._end(session, running)
            return
        session.running = running
        waiting, session.waiting = session.waiting, []
        for job in waiting:
            if not job.settled:
                self._submit(job)

    # ------------------------------------------------------------------------------------------------ parts

    def _on_event(self, event: Event) -> None:
        """From an engine's thread: an executor did not get ready."""
        if event.kind == "executor.failed":
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._executor_failed, event.session_id, event.detail)

    def _executor_failed(self, session_id: str, detail: str) -> None:
        session = self.sessions.get(session_id)
        if session is not None and session.is_open:
            self._bind_failed(session, detail)

    def _bind_failed(self, session: SessionRecord, why: str) -> None:
        session.add_event(BIND_FAILED, f"Executor on node <{self._node}> failed to bind session: {why}", now())
        self._store.save_session(session.row())
        log.warning("session %s has no executor: %s", session.session_id, why)

    def _check_taking(self) -> None:
        if self.draining:
            raise unavailable("the server is shutting down")

    def _spawn(self, work: Any) -> asyncio.Task[Any]:
        task: asyncio.Task[Any] = self._loop.create_task(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)
        return task

    async def settle_background(self) -> None:
        """Wait for what was begun beside requests."""
        if self._background:
            await asyncio.wait(self._background, timeout=10)


def _difference(old: types_pb2.SessionSpec, new: types_pb2.SessionSpec) -> str:
    if old.application != new.application:
        return f"application differs: {old.application} and {new.application}"
    mine = old.resreq if old.HasField("resreq") else DEFAULT_RESOURCES
    its = new.resreq if new.HasField("resreq") else DEFAULT_RESOURCES
    if mine != its:
        return "resreq differs"
    if old.min_instances != new.min_instances:
        return f"min_instances differs: {old.min_instances} and {new.min_instances}"
    mine_most = old.max_instances if old.HasField("max_instances") else None
    its_most = new.max_instances if new.HasField("max_instances") else None
    if mine_most != its_most:
        return f"max_instances differs: {mine_most} and {its_most}"
    if old.priority != new.priority:
        return f"priority differs: {old.priority} and {new.priority}"
    return ""


__all__ = ["Cluster", "Refusal"]
