"""What an engine needs of a host, without provisioning: workers run in this interpreter's own environment."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from flame_host._plugins.catalog import Catalog
from flame_host.api import (
    Application,
    Buffer,
    Cache,
    Capabilities,
    Environment,
    Event,
    LogRecord,
    Plan,
    Serializer,
    SessionSpec,
    buffer_view,
)


class OpenLease:
    """A lease of this interpreter's own environment; counts its releases."""

    def __init__(self, environment: Environment) -> None:
        self.environment = environment
        self.releases = 0

    def release(self) -> None:
        self.releases += 1


class BareServices:
    """`HostServices` for tests of engines: real plugins, no packages.

    Attributes:
        logs, events: everything reported so far. failure: raised by `provision` when set.
    """

    def __init__(self, root: Path | None = None) -> None:
        self._directory = None if root else tempfile.TemporaryDirectory(prefix="flame-test-")
        self.root = root or Path(self._directory.name if self._directory else "")
        self.catalog = Catalog()
        self.logs: list[LogRecord] = []
        self.events: list[Event] = []
        self.failure: Exception | None = None
        self.leases: list[OpenLease] = []

    def capabilities(self) -> Capabilities:
        return self.catalog.capabilities()

    def provision(self, application: Application) -> OpenLease:
        if self.failure is not None:
            raise self.failure
        version = f"{sys.version_info.major}.{sys.version_info.minor}"
        self.leases.append(OpenLease(Environment(key="test", python=Path(sys.executable), python_version=version)))
        return self.leases[-1]

    def support(self, environment: Environment, plan: Plan) -> Path:
        from flame_host._packages.support import support_directory

        modules = {module for format in plan.serializers for module in self.serializer(format).worker_modules}
        return support_directory(self.root, sorted(modules), with_client=False)

    def serializer(self, format: str) -> Serializer:
        return self.catalog.serializer(format)

    def cache(self, name: str) -> Cache:
        return self.catalog.cache(name)

    def log(self, record: LogRecord) -> None:
        self.logs.append(record)

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def close(self) -> None:
        if self._directory is not None:
            self._directory.cleanup()


class RecordingTask(Future[Any]):
    """An `api.Task` that is a plain future: its result is decoded, its error report is kept as ``report``."""

    frame: Any = None
    number = 0
    attempts = 0

    def __init__(self, serializer: Serializer, options: Any = None) -> None:
        super().__init__()
        self.options = options
        self.report = b""
        self.items: list[Any] = []
        self.begins = 0
        self.is_stream = False
        self.session: Any = None
        self._serializer = serializer

    def result(self, timeout: float | None = None) -> Any:
        if self.session is not None and not self.done():
            self.session.drive(self, self.done, timeout)
        return super().result(timeout)

    def begin(self) -> bool:
        self.begins += 1
        return not self.cancelled()

    def succeed(self, data: bytes | memoryview, buffers: Sequence[Buffer]) -> None:
        self.set_result(self._serializer.loads(data, buffers=[buffer_view(buffer) for buffer in buffers]))

    def fail_remotely(self, report: bytes) -> None:
        self.report = report
        length = int.from_bytes(report[:4], "little")
        body = report[4 + length :]
        self.set_exception(self._serializer.loads(body) if body else RuntimeError(report[4 : 4 + length].decode()))

    def fail(self, error: BaseException) -> None:
        self.set_exception(error)

    def open_stream(self) -> None:
        self.is_stream = True

    def stream(self, data: bytes | memoryview, buffers: Sequence[Buffer]) -> None:
        self.items.append(self._serializer.loads(data, buffers=[buffer_view(buffer) for buffer in buffers]))


class Caller:
    """Opens a session on a connection for one execution object, and calls it."""

    def __init__(self, connection: Any, services: BareServices, target: object, *, application: str = "flmrun", **spec: Any) -> None:
        from flame_host.api import Payload

        self.serializer = services.serializer("cloudpickle/1")
        buffers: list[Buffer] = []
        data = self.serializer.dumps(target, buffers=buffers)
        common = Payload("cloudpickle/1", data, tuple(buffers))
        self.session = connection.open_session(SessionSpec(application=application, common_data=common, **spec))

    def __call__(self, *args: Any, method: str = "", options: Any = None, **kwargs: Any) -> RecordingTask:
        task = RecordingTask(self.serializer, options)
        task.session = self.session
        buffers: list[Buffer] = []
        self.session.submit(task, method, self.serializer.dumps((args, kwargs), buffers=buffers), buffers)
        return task
