"""An actor's side: our host, which provisions, starts workers, and tells what happens."""

from __future__ import annotations

import os
import pickle
import socket
import threading
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from flame_engine_ray.messages import CALL, NOTHING, End, News, Order, Reply, written
from flame_engine_ray.seat import Seat
from flame_engine_ray.segments import NodeSegments
from flame_host import Host
from flame_host.api import Application, Event, FlameError, LogRecord, PackageRef
from flame_host.transport import Launcher, Loop, import_package

_GATHER = 0.01  # seconds that output waits for company


class Node:
    """Our host in an actor: it serves one executor after another, so that the next one need not wait for Ray to start a process."""

    def __init__(self) -> None:
        self._host = Host()
        self._host.add_log_sink(self._log)
        self._host.add_event_sink(self._observe)
        self._supervisor = Loop("flame-supervisor")
        self._io = Loop("flame-io")
        self._launcher = Launcher(self._host, self._supervisor, self._io)
        self.segments = NodeSegments()
        self._seat: Seat | None = None
        self._news = threading.Condition()
        self._logs: list[LogRecord] = []
        self._events: list[Event] = []
        self._end: tuple[Reply, End] | None = None

    def facts(self) -> bytes:
        """What this node can do, and why some installers cannot work here."""
        refusals: dict[str, str] = {}
        for name, installer in self._host.catalog.all("installers").items():
            try:
                installer.identity()
            except (FlameError, OSError) as error:
                refusals[name] = str(error)
        return written({"capabilities": self._host.capabilities(), "refusals": refusals, "node": socket.gethostname()})

    def begin(self, order: bytes, package: Sequence[Any]) -> bytes:
        """Provision, and start the worker; what follows goes through its seat."""
        try:
            application, session_id, number = Order(*pickle.loads(order))
            if package and application.package is not None:
                application = self._with_package(application, application.package, package[0])
            with self._news:
                self._end = None
            self._seat = Seat(self._launcher, self._supervisor, self.segments, application, session_id, number, self._ended)
            return written({"pid": os.getpid(), "python": self._launcher.python_of(application)})
        except BaseException as error:
            return written(error)

    def seat(self, number: int) -> Seat | None:
        """That of the executor of this number; None for one that has ended."""
        seat = self._seat
        return seat if seat is not None and seat.number == number else None

    def exchange(self, data: bytes, segments: Sequence[Any]) -> Any:
        """See `Seat.exchange`."""
        executor, number = CALL.unpack_from(data)
        seat = self.seat(executor)
        return NOTHING if seat is None else seat.exchange(number, memoryview(data)[CALL.size :], segments)

    def _with_package(self, application: Application, package: PackageRef, reference: Any) -> Application:
        import ray

        return replace(application, package=import_package(self._host.root, package, partial(ray.get, reference)))

    # ------------------------------------------------------------------------------------------------ news

    def watch(self) -> Any:
        """Wait for output, for events, for the end."""
        with self._news:
            self._news.wait_for(lambda: self._logs or self._events or self._end is not None)
            if self._end is None:
                self._news.wait(_GATHER)
            logs, self._logs = self._logs, []
            events, self._events = self._events, []
            reply, end = self._end or (Reply(-1), None)
        return reply._replace(news=pickle.dumps(tuple(News(logs, events, end)))).written()

    def _log(self, record: LogRecord) -> None:
        with self._news:
            self._logs.append(record)
            self._news.notify_all()

    def _observe(self, event: Event) -> None:
        with self._news:
            self._events.append(event)
            self._news.notify_all()

    def _ended(self, reply: Reply, end: End) -> None:
        with self._news:
            self._seat = None
            self._end = (reply, end)
            self._news.notify_all()
