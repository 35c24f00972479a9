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

    serve(_OnTheWire(service))


class _OnTheWire:
    """A service whose inputs and outputs are bytes, as the protocol has them."""

    def __init__(self, service: FlameService) -> None:
        self._service = service

    def on_session_enter(self, context: Any) -> object:
        told = context.application
        application = ApplicationContext(told.name, told.image, told.command, told.url, told.working_directory)
        self._service.on_session_enter(SessionContext(context.session_id, application, context.data))
        return None

    def on_task_invoke(self, context: Any) -> object:
        output = self._service.on_task_invoke(TaskContext(context.task_id, context.session_id, context.input))
        value = output.data if isinstance(output, TaskOutput) else output
        return value if value is None or isinstance(value, (bytes, bytearray, memoryview)) else _serializer().dumps(value)

    def on_session_leave(self) -> object:
        self._service.on_session_leave()
        return None


def _serializer() -> Any:
    from flame_host import Host

    return Host().catalog.serializer("cloudpickle")


def _decoded(data: Any) -> Any:
    return _serializer().loads(bytes(data)) if isinstance(data, (bytes, bytearray, memoryview)) else data
