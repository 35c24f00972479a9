"""Services of one's own: what a Flame application runs when it is not a Runner's."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

__all__ = ["ApplicationContext", "FlameService", "SessionContext", "TaskContext", "TaskOutput", "run"]


@dataclass
class ApplicationContext:
    """The application a session belongs to."""

    name: str
    image: str | None = None
    command: str | None = None
    url: str | None = None
    working_directory: str | None = None


@dataclass
class SessionContext:
    """What is the same for all tasks of a session.

    Attributes:
        data: the common data as bytes; `common_data` decodes it.
    """

    session_id: str
    application: ApplicationContext
    data: Any = None

    def common_data(self) -> Any:
        return _decoded(self.data)


@dataclass
class TaskContext:
    """One task.

    Attributes:
        data: the input as bytes; ``input`` decodes it.
    """

    task_id: str
    session_id: str
    data: Any = None

    @property
    def input(self) -> Any:
        return _decoded(self.data)


@dataclass
class TaskOutput:
    """What a task gives back; encoded with the session's serializer unless it is bytes already."""

    data: Any = field(default=None)


class FlameService(ABC):
    """One instance serves one session at a time; the three methods are called in turn."""

    @abstractmethod
    def on_session_enter(self, context: SessionContext) -> None:
        """A session begins: load what its tasks share. What is raised here fails the session."""

    @abstractmethod
    def on_task_invoke(self, context: TaskContext) -> TaskOutput | Any:
        """One task. What is raised here fails the task only."""

    @abstractmethod
    def on_session_leave(self) -> None:
        """The session ended, in whatever way."""


def run(service: FlameService) -> None:
    """Serve, on the socket named by ``FLAME_INSTANCE_ENDPOINT``, until the executor manager ends it."""
    from flame_host.wire.instance import serve

    serve(service)


def _decoded(data: Any) -> Any:
    if not isinstance(data, (bytes, bytearray, memoryview)):
        return data
    from flame_host import Host

    return Host().catalog.serializer("cloudpickle").loads(bytes(data))
