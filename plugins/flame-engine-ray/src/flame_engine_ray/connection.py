"""A connection to a Ray cluster."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from flame_engine_ray.cluster import Cluster, Endpoint
from flame_engine_ray.launcher import RayLauncher
from flame_engine_ray.segments import RaySegment, keep_all
from flame_host.api import Buffer, Capabilities, ConfigError, HostServices, Resources, Session, SessionSpec, WorkerCrashedError, buffer_size
from flame_host.transport import INLINE_LIMIT, Loop, Share, SharedObjects, WorkerConnection

_LISTEN = 5.0  # seconds between looks at whether the head answers
_SILENCE = 25.0  # seconds without an answer after which it counts as gone; after a minute Ray would end this process


class RayConnection(WorkerConnection):
    """Sessions of ours on executors that Ray places."""

    def __init__(self, endpoint: str, services: HostServices) -> None:
        self._services = services
        self._capabilities: Capabilities | None = None
        self._cluster = Cluster(Endpoint.parse(endpoint))
        self._heard = time.monotonic()
        super().__init__(
            endpoint,
            services,
            self._launch,
            objects=_Objects(services.cache("local").open("local:")),
            shares=_Room(self._cluster),
            cores=self._cluster.cores,
        )
        self.supervisor.later(_LISTEN, self._listen)

    def _launch(self, supervisor: Loop, io: Loop) -> RayLauncher:
        self._ray = RayLauncher(self._cluster, self._services, supervisor, io, self.make_room)
        return self._ray

    def capabilities(self) -> Capabilities:
        """What can be done on every node."""
        if self._capabilities is None:
            self._capabilities = replace(self._ray.survey(), sees_client_files=True)  # packages are carried to the nodes
        return self._capabilities

    def _listen(self) -> None:
        """In the supervisor's thread, again and again: Ray itself says nothing of a head that is gone, until it ends this process."""
        now = time.monotonic()
        if self._cluster.answers():
            self._heard = now
        elif now - self._heard > _SILENCE:
            self._lose_head()
            return
        self.supervisor.later(_LISTEN, self._listen)

    def _lose_head(self) -> None:
        reason = WorkerCrashedError(
            f"the head of the Ray cluster at {self.endpoint} has been out of reach for {_SILENCE:g} s",
            hint="start it again, and open a new Runner",
        )
        self._cluster.lost = True
        self._ray.end_workers()
        self.give_up(reason)
        # Not here: what leaves a cluster that is gone may take its time.
        threading.Thread(target=self._cluster.close, name="flame-ray-leave", daemon=True).start()

    def open_session(self, spec: SessionSpec) -> Session:
        if spec.priority:
            raise ConfigError(
                "priority= orders the services that wait for room; on a Ray cluster Ray decides who is next, and knows none",
                hint="leave it out; single calls have a priority of their own: svc.options(priority=…)",
            )
        return super().open_session(spec)

    def close(self) -> None:
        if self._cluster.owned and not self._cluster.lost:
            keep_all()
        super().close()
        self._cluster.close()


class _Objects(SharedObjects):
    """What is put goes into Ray's object store, once, however often it is an argument."""

    def stable(self, buffer: Buffer) -> Buffer:
        if isinstance(buffer, (bytearray, memoryview)) and buffer_size(buffer) > INLINE_LIMIT:
            return RaySegment.put(buffer)
        return super().stable(buffer)


class _Room:
    """Ray hands out what executors need; here it is only known who has what. See `flame_host.transport.Room`."""

    def __init__(self, cluster: Cluster) -> None:
        self.check = cluster.check

    def take(self, who: object, wanted: Resources, priority: int) -> Share | None:
        return Share(wanted, ())

    def leave(self, who: object) -> None:
        """Nobody waits here."""

    def give_back(self, share: Share) -> None:
        """Ray has it back when the actor ends."""
