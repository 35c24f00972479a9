"""The local engine: sessions on worker processes of this machine; and what every engine of worker processes has in common."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Callable
from dataclasses import replace

from flame_host.api import (
    Application,
    Capabilities,
    ClosedError,
    Event,
    FlameError,
    HostServices,
    ObjectStore,
    Session,
    SessionInfo,
    SessionSpec,
)
from flame_host.engine.launcher import Launcher, Launching
from flame_host.engine.loop import Loop
from flame_host.engine.objects import SharedObjects
from flame_host.engine.registry import Registry
from flame_host.engine.session import LocalSession
from flame_host.engine.shares import Room, Shares, check_resources, this_machine

_connections: weakref.WeakSet[WorkerConnection] = weakref.WeakSet()


def _forget_all() -> None:
    for connection in list(_connections):
        connection.forget()


os.register_at_fork(after_in_child=_forget_all)


class WorkerConnection:
    """A connection whose sessions run on worker processes, wherever a launcher starts them. Owns the two loops and the sessions.

    Args:
        launch: makes what starts the workers; it gets the supervisor's loop and the io loop.
        shares: of what there is to run on. cores: how many executors a session may have that does not say.
    """

    def __init__(
        self,
        endpoint: str,
        services: HostServices,
        launch: Callable[[Loop, Loop], Launching],
        *,
        objects: ObjectStore,
        shares: Room,
        cores: int,
    ) -> None:
        self.endpoint = endpoint
        self.services = services
        self.cores = cores
        self.io = Loop("flame-io")
        self.supervisor = Loop("flame-supervisor")
        self.launcher = launch(self.supervisor, self.io)
        self.objects = objects
        self.shares = shares
        self._registry = Registry(endpoint)
        self._pid = os.getpid()
        _connections.add(self)
        self.get_application = self._registry.find_application
        self.list_applications = self._registry.applications
        self.list_sessions = self._registry.sessions

    # ------------------------------------------------------------------------------------------------ Connection

    def capabilities(self) -> Capabilities:
        return replace(self.services.capabilities(), shares_memory=True, sees_client_files=True, provisions_here=True)

    def register_application(self, application: Application) -> None:
        self._registry.register(application)

    def update_application(self, application: Application) -> None:
        self._registry.update(application)
        self.launcher.renew(application)

    def unregister_application(self, name: str) -> None:
        self._registry.unregister(name)
        self.launcher.release_environment(name)

    def open_session(self, spec: SessionSpec) -> Session:
        application = self._registry.application(spec.application)
        check_resources(spec, self.shares)
        session = LocalSession(self._registry.name_session(spec), application, self)
        self._registry.add_session(session)
        self.services.observe(Event("session.opened", time.time(), session.session_id))
        return session

    def get_session(self, session_id: str) -> SessionInfo:
        return self._registry.session(session_id).info()

    def close_session(self, session_id: str) -> None:
        self._registry.session(session_id).close()

    def forget_session(self, session_id: str) -> None:
        """A closed session need not be listed any more."""
        self._registry.forget_session(session_id)

    def close(self) -> None:
        if self._registry.closed or os.getpid() != self._pid:  # workers, directories and leases are the parent's
            return
        for session in self._registry.close():
            session.close(wait=False)
        self.launcher.end_workers()
        self.supervisor.stop()
        self.io.stop()
        self.launcher.close()
        self.objects.close()

    def make_room(self, session: LocalSession) -> None:
        """A session waits for a share: those of idle workers are given back."""
        for other in self._registry.open_sessions():
            if other is not session and isinstance(other, LocalSession):
                other.give_up_idle()

    def forget(self) -> None:
        """In a forked child: the workers, and the threads that everything needs, are the parent's."""
        self.io.forget_thread()
        self.supervisor.forget_thread()
        reason = ClosedError(
            f"this process was forked from process {self._pid}, which the Runner belongs to", hint="open a Runner of its own in the child"
        )
        self.give_up(reason)

    def give_up(self, reason: FlameError) -> None:
        """Whatever waits is told so, now; nobody is asked, and nobody waited for."""
        for session in self._registry.open_sessions():
            if isinstance(session, LocalSession):
                session.forget(reason)

    def is_own_thread(self) -> bool:
        """Whether this is one of the threads that everything here needs to go on."""
        return self.supervisor.is_current() or self.io.is_current()


class LocalConnection(WorkerConnection):
    """Worker processes of this machine."""

    def __init__(self, endpoint: str, services: HostServices) -> None:
        super().__init__(
            endpoint,
            services,
            lambda supervisor, io: Launcher(services, supervisor, io),
            objects=SharedObjects(services.cache("local").open("local:")),
            shares=Shares(*this_machine()),
            cores=len(os.sched_getaffinity(0)),
        )
