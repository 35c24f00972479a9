"""What a future knows of where it came from: the session, and how to read what comes back."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flame_host.api import Buffer, Connection, Payload, Serializer, Session
from flamepy._refs import ObjectRef

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture
    from flamepy._calls.logs import TaskLogs


class Source:
    """One open session with its serializer; shared by all futures of a service.

    Attributes:
        for_threads: its futures go to programs made for `concurrent.futures`, which may block an event loop until they are called back.
    """

    __slots__ = ("application", "connection", "for_threads", "format", "label", "loads", "logs", "serializer", "session", "streams")

    def __init__(
        self,
        connection: Connection,
        session: Session,
        serializer: Serializer,
        *,
        application: str,
        label: str,
        logs: TaskLogs | None = None,
    ) -> None:
        self.connection = connection
        self.session = session
        self.serializer = serializer
        self.loads = serializer.loads
        self.format = f"{serializer.name}/{serializer.version}"
        self.application = application
        self.label = label
        self.logs = logs
        self.for_threads = False
        self.streams: weakref.WeakSet[ObjectFuture[Any]] = weakref.WeakSet()

    def decode(self, data: bytes, buffers: Sequence[memoryview] = ()) -> Any:
        return self.serializer.loads(data, buffers=buffers)

    def encode(self, value: object) -> Payload:
        buffers: list[Buffer] = []
        data = self.serializer.dumps(value, buffers=buffers)
        return Payload(self.format, data, tuple(buffers))

    def keep(self, future: ObjectFuture[Any]) -> ObjectRef:
        """Store a result in the cache, under the task's own key."""
        key = f"{self.application}/{self.session.session_id}/{future.number or id(future)}"
        return ObjectRef.of(self.connection.objects.put(key, future.payload()))

    def abandon_streams(self) -> None:
        """Cancel generators that wait for somebody to take their items: at the end of a session nobody will."""
        for future in list(self.streams):
            future.cancel()

    def logs_of(self, number: int) -> str:
        return "" if self.logs is None else self.logs.of(self.session.session_id, number)
