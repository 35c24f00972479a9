"""What a future knows of where it came from: the session, and how to read what comes back."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flame_host.api import Buffer, Connection, Payload, Serializer, Session
from flamepy._refs import ObjectRef

if TYPE_CHECKING:
    from flame_host import api
    from flame_host.api import ObjectStore
    from flamepy._calls.future import ObjectFuture
    from flamepy._calls.logs import TaskLogs
    from flamepy._stores import Stores


class SessionHandle:
    """One open session with its serializer; shared by all futures of a service.

    Args:
        stores: where results that are kept go, and references are looked up; by default at the engine's own cache.

    Attributes:
        for_threads: its futures go to programs made for `concurrent.futures`, which may block an event loop until they are called back.
    """

    __slots__ = (
        "_objects", "_stores", "application", "connection", "for_threads", "format", "label", "loads", "logs", "serializer", "session",
        "streams",
    )  # fmt: skip

    def __init__(
        self,
        connection: Connection,
        session: Session,
        serializer: Serializer,
        *,
        application: str,
        label: str,
        logs: TaskLogs | None = None,
        stores: Stores | None = None,
        objects: ObjectStore | None = None,
    ) -> None:
        self.connection = connection
        self._stores = stores
        self._objects = connection.objects if objects is None else objects
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
        return ObjectRef.of(self._objects.put(key, future.payload()))

    def fetch(self, ref: api.ObjectRef) -> Payload:
        """What an argument refers to."""
        return (self._objects if self._stores is None else self._stores.at(ref.endpoint)).get(ref)

    def abandon_streams(self) -> None:
        """Cancel generators that wait for somebody to take their items: at the end of a session nobody will."""
        for future in list(self.streams):
            future.cancel()

    def logs_of(self, number: int) -> str:
        return "" if self.logs is None else self.logs.of(self.session.session_id, number)
