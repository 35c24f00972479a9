"""An engine for tests of whatever stands before engines: everything in memory, and calls run when the test says so."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from flame_host.api import (
    Application,
    ApplicationExistsError,
    ApplicationNotFoundError,
    Buffer,
    Capabilities,
    ClosedError,
    Connection,
    HostServices,
    ObjectNotFoundError,
    ObjectRef,
    Payload,
    Serializer,
    Session,
    SessionInfo,
    SessionNotFoundError,
    SessionSpec,
    SessionState,
    Task,
    VersionConflictError,
    buffer_view,
)
from flame_host.worker.runtime.report import error_report


class FakeEngine:
    """Serves ``fake:``. With ``hold``, calls wait in ``session.queue`` until `FakeSession.run` is called."""

    name = "fake"
    schemes = ("fake",)

    def __init__(self, *, hold: bool = False) -> None:
        self.hold = hold
        self.connections: list[FakeConnection] = []

    def connect(self, endpoint: str, services: HostServices) -> Connection:
        connection = FakeConnection(endpoint, services.capabilities, services.serializer, hold=self.hold)
        self.connections.append(connection)
        return connection


class FakeObjects:
    """Objects in a dictionary, with versions."""

    endpoint = "fake:"

    def __init__(self) -> None:
        self._objects: dict[str, list[Payload]] = {}
        self._names = itertools.count(1)

    def put(self, key: str, payload: Payload) -> ObjectRef:
        if key.count("/") < 2:
            key = f"{key}/{next(self._names)}"
        self._objects[key] = [payload]
        return ObjectRef(self.endpoint, key, 1, payload.format, payload.size)

    def get(self, ref: ObjectRef) -> Payload:
        versions = self._objects.get(ref.key, [])
        if not versions or ref.version > len(versions):
            raise ObjectNotFoundError(f"no object {ref.key} version {ref.version}")
        return versions[ref.version - 1]

    def update(self, ref: ObjectRef, payload: Payload, *, if_version: int | None = None) -> ObjectRef:
        versions = self._objects.setdefault(ref.key, [])
        if if_version is not None and if_version != len(versions):
            raise VersionConflictError(f"{ref.key} has version {len(versions)}, not {if_version}")
        versions.append(payload)
        return ObjectRef(self.endpoint, ref.key, len(versions), payload.format, payload.size)

    def delete(self, key: str) -> int:
        gone = [name for name in self._objects if name == key or name.startswith(key.rstrip("/") + "/")]
        for name in gone:
            del self._objects[name]
        return len(gone)

    def close(self) -> None:
        self._objects.clear()


class FakeConnection:
    """A connection whose sessions run calls in the thread that submits them, or holds them."""

    def __init__(
        self, endpoint: str, capabilities: Callable[[], Capabilities], serializer: Callable[[str], Serializer], *, hold: bool = False
    ) -> None:
        self.endpoint = endpoint
        self.objects = FakeObjects()
        self.sessions: dict[str, FakeSession] = {}
        self.closed = False
        self._capabilities = capabilities
        self._serializer = serializer
        self._hold = hold
        self._applications = {"flmrun": Application("flmrun")}

    def capabilities(self) -> Capabilities:
        return replace(self._capabilities(), runs_in_process=True, sees_client_files=True)

    def register_application(self, application: Application) -> None:
        if application.name in self._applications:
            raise ApplicationExistsError(f"application {application.name!r} is registered already")
        self._applications[application.name] = application

    def update_application(self, application: Application) -> None:
        self._applications[application.name] = application

    def unregister_application(self, name: str) -> None:
        if self._applications.pop(name, None) is None:
            raise ApplicationNotFoundError(f"application {name!r} is not registered")

    def get_application(self, name: str) -> Application | None:
        return self._applications.get(name)

    def list_applications(self) -> Sequence[Application]:
        return list(self._applications.values())

    def open_session(self, spec: SessionSpec) -> Session:
        if spec.application not in self._applications:
            raise ApplicationNotFoundError(f"application {spec.application!r} is not registered")
        session_id = spec.session_id or f"{spec.application}-{len(self.sessions) + 1}"
        session = FakeSession(session_id, spec, self._serializer(spec.common_data.format), self._serializer, hold=self._hold)
        self.sessions[session_id] = session
        return session

    def get_session(self, session_id: str) -> SessionInfo:
        if session_id not in self.sessions:
            raise SessionNotFoundError(f"session {session_id!r} is not known")
        return self.sessions[session_id].info()

    def list_sessions(self) -> Sequence[SessionInfo]:
        return [session.info() for session in self.sessions.values()]

    def close_session(self, session_id: str) -> None:
        self.get_session(session_id)
        self.sessions[session_id].close()

    def close(self) -> None:
        for session in self.sessions.values():
            session.close()
        self.closed = True


class FakeSession:
    """Attributes:
    queue: calls not yet run. submitted: the method of every call, in the order they came.
    """

    def __init__(
        self, session_id: str, spec: SessionSpec, serializer: Serializer, find: Callable[[str], Serializer], *, hold: bool = False
    ) -> None:
        self.session_id = session_id
        self.spec = spec
        self.queue: list[tuple[Task, str, bytes, Sequence[Buffer], Sequence[Payload]]] = []
        self.submitted: list[str] = []
        self.closed = False
        self._hold = hold
        self._serializer = serializer
        self._find = find
        self._created = time.time()
        self._target: Any = None
        self._loaded = False
        self._ended = [0, 0]

    def submit(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer] = (), references: Sequence[Payload] = ()) -> None:
        if self.closed:
            raise ClosedError(f"session {self.session_id} is closed")
        self.submitted.append(method)
        task.number = len(self.submitted)
        self.queue.append((task, method, data, buffers, references))
        if not self._hold:
            self.run()

    def run(self, count: int | None = None) -> int:
        """Run held calls, oldest first; returns how many were taken."""
        taken = 0
        while self.queue and (count is None or taken < count):
            task, method, data, buffers, references = self.queue.pop(0)
            taken += 1
            if task.begin():
                self._run(task, method, data, buffers, references)
        return taken

    def _run(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer], references: Sequence[Payload]) -> None:
        def resolve(index: int) -> Any:
            return self._read(references[index])

        try:
            args, kwargs = self._serializer.loads(data, buffers=[buffer_view(buffer) for buffer in buffers], resolve=resolve)
            target = self._object()
            value = (getattr(target, method) if method else target)(*args, **kwargs)
            out: list[Buffer] = []
            encoded = self._serializer.dumps(value, buffers=out)
        except Exception as error:
            self._ended[1] += 1
            task.fail_remotely(error_report(error, self._serializer.dumps))
        else:
            self._ended[0] += 1
            task.succeed(encoded, out)

    def _object(self) -> Any:
        if not self._loaded:
            target = self._read(self.spec.common_data)
            self._target = target() if self.spec.instantiate else target
            self._loaded = True
        return self._target

    def _read(self, payload: Payload) -> Any:
        return self._find(payload.format).loads(payload.data, buffers=[buffer_view(buffer) for buffer in payload.buffers])

    def drive(self, task: Task, enough: Callable[[], bool], timeout: float | None = None) -> None:
        """There is nothing to help with."""

    def cancel(self, task: Task, *, force: bool = False) -> bool:
        before = len(self.queue)
        self.queue = [entry for entry in self.queue if entry[0] is not task]
        return len(self.queue) < before

    def grant(self, task: Task, taken: int) -> None:
        """Items are not held back."""

    def info(self) -> SessionInfo:
        state = SessionState.CLOSED if self.closed else SessionState.OPEN
        return SessionInfo(
            self.session_id,
            self.spec.application,
            state,
            self._created,
            pending=len(self.queue),
            succeeded=self._ended[0],
            failed=self._ended[1],
        )

    def close(self, *, wait: bool = True) -> None:
        if wait:
            self.run()
        for task, *_ in self.queue:
            task.fail(ClosedError(f"session {self.session_id} was closed before the task ran"))
        self.queue.clear()
        self.closed = True
