"""A connected cluster: its applications, and the sessions this program has opened."""

from __future__ import annotations

import os
import uuid
import weakref
from collections.abc import Sequence

from flame_engine_flame.applications import OURS, STOCK, Served, application_of, capabilities_of, served_by, spec_of
from flame_engine_flame.dialects import Dialect, HostDialect
from flame_engine_flame.endpoint import Cluster
from flame_engine_flame.frontend import FIRST_PATIENCE, Frontend
from flame_engine_flame.loop import Loop
from flame_engine_flame.session import FlameSession
from flame_engine_flame.store import ClusterObjects
from flame_host.api import (
    Application,
    ApplicationExistsError,
    ApplicationNotFoundError,
    Capabilities,
    ClosedError,
    ConfigError,
    HostServices,
    Session,
    SessionError,
    SessionInfo,
    SessionSpec,
)
from flame_host.wire.convert import resources_to_proto, session_from_proto
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2

_connections: weakref.WeakSet[FlameConnection] = weakref.WeakSet()


class FlameConnection:
    """Attributes:
    loop, frontend: what all sessions use. objects: the cluster's cache, opened when first used.
    """

    def __init__(self, cluster: Cluster, services: HostServices) -> None:
        self.endpoint = cluster.endpoint
        self.services = services
        self.loop = Loop()
        self.frontend = Frontend(cluster)
        self.objects = ClusterObjects(cluster.cache, services)
        self._cluster = cluster
        self._pid = os.getpid()
        self._sessions: dict[str, FlameSession] = {}
        try:
            self._template = self.loop.run(self._find_template())
        except BaseException:
            self.loop.stop()
            raise
        _connections.add(self)

    async def _find_template(self) -> types_pb2.Application:
        """The one that was named; else our host where it is registered, else the cluster's own runner."""
        wanted = (self._cluster.template,) if self._cluster.template else (OURS, STOCK)
        for name in wanted:
            try:
                request = frontend_pb2.GetApplicationRequest(name=name)
                found: types_pb2.Application = await self.frontend.call("GetApplication", request, patience=FIRST_PATIENCE)
            except ApplicationNotFoundError:
                continue
            return found
        raise ConfigError(
            f"the cluster {self.endpoint} has no application {' or '.join(map(repr, wanted))} to make Runners after",
            hint=f"register our host:  flame-host template --name {wanted[0]} > host.yaml; flmctl register -f host.yaml",
        )

    # ------------------------------------------------------------------------------------------------ Connection

    def capabilities(self) -> Capabilities:
        told = capabilities_of(self._template)
        return Capabilities(told.families, python=told.python, platform=told.platform, storage=self._cluster.cache)

    def register_application(self, application: Application) -> None:
        spec = spec_of(application, self._template)
        if self._known(application.name) is not None:  # some clusters would take the new one for an update
            raise ApplicationExistsError(
                f"application {application.name!r} is registered already", hint="choose another name, or close the Runner that uses it"
            )
        self.loop.run(
            self.frontend.done("RegisterApplication", frontend_pb2.RegisterApplicationRequest(name=application.name, application=spec))
        )

    def update_application(self, application: Application) -> None:
        spec = spec_of(application, self._template)
        self.loop.run(
            self.frontend.done("UpdateApplication", frontend_pb2.UpdateApplicationRequest(name=application.name, application=spec))
        )

    def unregister_application(self, name: str) -> None:
        self.loop.run(self.frontend.done("UnregisterApplication", frontend_pb2.UnregisterApplicationRequest(name=name)))

    def get_application(self, name: str) -> Application | None:
        found = self._known(name)
        return None if found is None else application_of(found)

    def list_applications(self) -> Sequence[Application]:
        found = self.loop.run(self.frontend.call("ListApplication", frontend_pb2.ListApplicationRequest()))
        return [application_of(message) for message in found.applications]

    def open_session(self, spec: SessionSpec) -> Session:
        message = self._application(spec.application)
        application = application_of(message)
        session_id = spec.session_id or f"{spec.application}-{uuid.uuid4().hex[:12]}"
        dialect = self._dialect(message, application, spec, session_id)
        request = frontend_pb2.CreateSessionRequest(session_id=session_id, session=self._session_spec(application, spec, dialect))
        self.loop.run(self.frontend.call("CreateSession", request, again=False))
        session = self._sessions[session_id] = FlameSession(session_id, spec, dialect, self)
        return session

    def get_session(self, session_id: str) -> SessionInfo:
        return session_from_proto(self.loop.run(self.frontend.call("GetSession", frontend_pb2.GetSessionRequest(session_id=session_id))))

    def list_sessions(self) -> Sequence[SessionInfo]:
        found = self.loop.run(self.frontend.call("ListSession", frontend_pb2.ListSessionRequest()))
        return [session_from_proto(message) for message in found.sessions]

    def close_session(self, session_id: str) -> None:
        ours = self._sessions.get(session_id)
        if ours is not None:
            ours.close()
        else:
            self.loop.run(self.frontend.call("CloseSession", frontend_pb2.CloseSessionRequest(session_id=session_id)))

    def close(self) -> None:
        if self.loop.closed or os.getpid() != self._pid:
            return
        try:
            for session in list(self._sessions.values()):
                session.close(wait=False)
            self.loop.run(self.frontend.close())
        except ClosedError:  # another thread was quicker
            pass
        finally:
            self.loop.stop()
            self.objects.close()

    def forget(self, session: FlameSession) -> None:
        """It is closed."""
        self._sessions.pop(session.session_id, None)

    # ------------------------------------------------------------------------------------------------ parts

    def _known(self, name: str) -> types_pb2.Application | None:
        try:
            return self._application(name)
        except ApplicationNotFoundError:
            return None

    def _application(self, name: str) -> types_pb2.Application:
        """Where our host is the template, what is opened on the cluster's own runner is for it."""
        if name == STOCK and self._template.metadata.name != STOCK and served_by(self._template) is Served.OURS:
            return self._template
        found: types_pb2.Application = self.loop.run(self.frontend.call("GetApplication", frontend_pb2.GetApplicationRequest(name=name)))
        return found

    def _dialect(self, message: types_pb2.Application, application: Application, spec: SessionSpec, session_id: str) -> Dialect:
        served = served_by(message)
        if served is Served.OTHER:
            raise SessionError(
                f"application {application.name!r} is a program of its own, and takes no functions, classes or instances",
                hint="talk to it with the messages it defines, or open a Runner",
            )
        if served is Served.STOCK:
            from flame_engine_flame.stock import StockDialect

            return StockDialect(application, spec, session_id, self.objects, self.services)
        return HostDialect(application, spec, session_id, self.objects)

    @staticmethod
    def _session_spec(application: Application, spec: SessionSpec, dialect: Dialect) -> types_pb2.SessionSpec:
        if spec.priority < 0:
            raise ConfigError(f"priority {spec.priority}: a cluster's begin at 0", hint="give the others a higher one")
        made = types_pb2.SessionSpec(
            application=application.name,
            common_data=dialect.common_data(),
            min_instances=max(spec.min_instances, spec.warmup, 1 if spec.stateful else 0),
            batch_size=1,
            priority=spec.priority,
        )
        if spec.stateful or spec.max_instances:
            made.max_instances = 1 if spec.stateful else max(spec.max_instances, made.min_instances)
        if spec.resources is not None:
            made.resreq.CopyFrom(resources_to_proto(spec.resources))
        return made


def _forget_all() -> None:
    """In a forked child: the loop's thread and the sockets are the parent's."""
    for connection in list(_connections):
        connection.loop.closed = True


os.register_at_fork(after_in_child=_forget_all)
