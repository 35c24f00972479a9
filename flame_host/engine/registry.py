"""Applications and sessions by name: the part that every engine of ours has in common."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace

from flame_host.api import (
    Application,
    ApplicationError,
    ApplicationExistsError,
    ApplicationNotFoundError,
    ClosedError,
    Session,
    SessionInfo,
    SessionNotFoundError,
    SessionSpec,
)

FLMRUN = Application(
    name="flmrun",
    description="The Flame Runner application for executing customized Python applications.",
    command="uv",
    arguments=("run", "-m", "flamepy.runpy"),
)
"""The template every Runner application is made from; registered in every engine from the start."""


class Registry:
    """Thread-safe."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.closed = False
        self._lock = threading.Lock()
        self._applications = {FLMRUN.name: replace(FLMRUN, creation_time=time.time())}
        self._sessions: dict[str, Session] = {}

    def register(self, application: Application) -> None:
        with self._lock:
            self._check_open()
            if application.name in self._applications:
                raise ApplicationExistsError(
                    f"application {application.name!r} is registered already",
                    hint="choose another name, or close the Runner that uses it",
                )
            self._applications[application.name] = replace(application, creation_time=application.creation_time or time.time())

    def update(self, application: Application) -> None:
        """Sessions that are open go on with the application they were opened on."""
        with self._lock:
            self._check_open()
            if application.name not in self._applications:
                raise self._unknown(application.name)
            self._applications[application.name] = application

    def unregister(self, name: str) -> Application:
        with self._lock:
            application = self._applications.get(name)
            if application is None:
                raise self._unknown(name)
            open_sessions = [session_id for session_id, session in self._sessions.items() if session.info().application == name]
            if any(self._sessions[session_id].info().completion_time is None for session_id in open_sessions):
                raise ApplicationError(f"application {name!r} has open sessions", hint="close its services first")
            for session_id in open_sessions:
                del self._sessions[session_id]
            return self._applications.pop(name)

    def application(self, name: str) -> Application:
        application = self._applications.get(name)
        if application is None:
            raise self._unknown(name)
        return application

    def find_application(self, name: str) -> Application | None:
        return self._applications.get(name)

    def applications(self) -> Sequence[Application]:
        with self._lock:
            return sorted(self._applications.values(), key=lambda application: application.name)

    def name_session(self, spec: SessionSpec) -> SessionSpec:
        """The spec with an id of its own."""
        self._check_open()
        return spec if spec.session_id else replace(spec, session_id=f"{spec.application}-{uuid.uuid4().hex[:8]}")

    def add_session(self, session: Session) -> None:
        with self._lock:
            if session.session_id in self._sessions:
                raise ApplicationError(f"session {session.session_id!r} exists already")
            self._sessions[session.session_id] = session

    def session(self, session_id: str) -> Session:
        session = self._sessions.get(session_id)
        if session is None:
            raise SessionNotFoundError(f"session {session_id!r} is not known to {self.endpoint}")
        return session

    def forget_session(self, session_id: str) -> None:
        with self._lock:
            self._sessions.pop(session_id, None)

    def sessions(self) -> Sequence[SessionInfo]:
        with self._lock:
            return [session.info() for session in self._sessions.values()]

    def open_sessions(self) -> list[Session]:
        return list(self._sessions.values())  # in one go; in a forked child the lock may be held by nobody

    def close(self) -> list[Session]:
        """No more of anything; returns the sessions to be closed."""
        with self._lock:
            self.closed = True
            sessions = list(self._sessions.values())
            self._sessions.clear()
            return sessions

    def _check_open(self) -> None:
        if self.closed:
            raise ClosedError(f"the connection to {self.endpoint} is closed", hint="connect again")

    def _unknown(self, name: str) -> ApplicationNotFoundError:
        known = ", ".join(sorted(self._applications))
        return ApplicationNotFoundError(f"application {name!r} is not registered; registered: {known}")
