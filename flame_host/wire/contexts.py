"""What a service is told: application, session and task, free of protobuf."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class ApplicationContext:
    """The application as its executor manager knows it; None where it was registered without."""

    name: str
    image: str | None = None
    command: str | None = None
    working_directory: str | None = None
    url: str | None = None
    installer: str | None = None


@dataclass(frozen=True)
class SessionContext:
    """The session this process was started for."""

    session_id: str
    application: ApplicationContext
    data: bytes | None = None

    def common_data(self) -> bytes | None:
        """What the session was opened with; a method because users' services call it as one."""
        return self.data


@dataclass(frozen=True)
class TaskContext:
    """One task."""

    task_id: str
    session_id: str
    input: bytes | None = None


class Service(Protocol):
    """What is served: one session per process, one call at a time.

    Raising anything, SystemExit included, fails the enter or the task with the traceback as its message; the process goes on.
    ``on_session_enter`` may also say False. The result of ``on_task_invoke`` is bytes-like, something with such a ``data``, or None.
    """

    def on_session_enter(self, context: SessionContext) -> object: ...

    def on_task_invoke(self, context: TaskContext) -> object: ...

    def on_session_leave(self) -> object: ...
