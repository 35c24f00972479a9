"""Starting executors: an actor where Ray finds room, our host in it, and a worker in that."""

from __future__ import annotations

import contextlib
import itertools
import pickle
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import ray
from ray.exceptions import RayError

from flame_engine_ray.bundle import bundle, providers_of
from flame_engine_ray.messages import Order, read
from flame_engine_ray.worker import RayWorker
from flame_host.api import Capabilities, ClosedError, ConfigError, Event, Plan, WorkerStartError
from flame_host.transport import export_package

if TYPE_CHECKING:
    from flame_engine_ray.cluster import Cluster
    from flame_host.api import Application, HostServices
    from flame_host.transport import Loop

_SPARE = 30.0  # seconds that an actor without a worker is kept
_HAND_OVER = 10.0  # seconds that an actor may take to hand over what was made in it
_SURVEYED = 16  # nodes that are asked what they can do
_SURVEY = 60.0  # seconds for them to say so
_LOOK_AGAIN = 0.5  # seconds between looks at whether anybody still wants what is being started


class RayLauncher:
    """See `flame_host.transport.Launching`.

    Args:
        make_room: called while a session waits for its share of the cluster.
    """

    def __init__(self, cluster: Cluster, services: HostServices, supervisor: Loop, io: Loop, make_room: Callable[[Any], None]) -> None:
        self._cluster = cluster
        self._services = services
        self._supervisor = supervisor
        self._io = io
        self._make_room = make_room
        self._lock = threading.Lock()
        self._workers: dict[Any, RayWorker] = {}
        self._actors: dict[Any, tuple[str, Any]] = {}
        self._spare = Spare(max(4, cluster.cores), supervisor.later)
        self._numbers = itertools.count(1)
        self._packages: dict[str, Any] = {}
        self._pythons: dict[str, str] = {}
        self._closed = False

    def spawn(self, session: Any, executor: Any) -> RayWorker:
        if self._closed:
            raise ClosedError("the connection is closed")
        application: Application = session.application
        carried = bundle(providers_of(application.plan, self._services.capabilities()))
        kind = (carried.digest, session.spec.resources)
        number = next(self._numbers)
        order = pickle.dumps(tuple(Order(application, session.session_id, number)))
        package = self._package(application)
        spare = self._spare.take(kind)
        fresh = spare is None
        actor: Any = spare
        if fresh:
            actor = self._cluster.start_actor(session.spec.resources)
            boarded = actor.board.remote(carried.digest, [self._cluster.keep(carried.digest, lambda: carried.content)])
        self._actors[actor] = kind
        worker = RayWorker(actor, number, executor, self._services, self._io, self._supervisor)
        self._workers[executor] = worker
        try:
            begun = actor.begin.remote(order, package)
            worker.watch()
            if fresh:
                self._await(boarded, session, executor, waits_for_room=True)
            facts = self._await(begun, session, executor)
        except BaseException:
            self._forget(executor)
            raise
        worker.pid = facts["pid"]
        self._pythons[application.name] = facts["python"]
        return worker

    def survey(self) -> Capabilities:
        """What all nodes can do: what travels is the same everywhere, but tools of installers are there or not.

        Raises:
            ConfigError: no installer works on all of them.
        """
        offered = self._services.capabilities()
        carried = bundle(providers_of(Plan(), offered))
        actors = self._cluster.start_on_each_node(_SURVEYED)
        bundle_list = [self._cluster.keep(carried.digest, lambda: carried.content)]
        asked = [actor.board.remote(carried.digest, bundle_list) for actor in actors]
        ready, _ = ray.wait(asked, num_returns=len(asked), timeout=_SURVEY) if asked else ([], [])
        refusals: dict[str, list[str]] = {}
        for reference in ready:
            with contextlib.suppress(RayError):  # gone meanwhile, and nothing is started there
                facts = read(ray.get(reference))
                for name, reason in facts["refusals"].items():
                    refusals.setdefault(name, []).append(f"{facts['node']}: {reason}")
        for actor in actors:
            end(actor)  # no executor may have it: it was put where it is without a thought of room, and of what executors need
        working = [installer for installer in offered.of("installers") if installer.name not in refusals]
        if refusals and not working:
            reasons = "; ".join(reason for reasons in refusals.values() for reason in reasons)
            raise ConfigError(
                f"no installer works on every node of the Ray cluster: {reasons}",
                hint="install uv on the nodes, or flame-install-pip here, which needs nothing there",
            )
        return replace(offered, families={**offered.families, "installers": working})

    def _await(self, reference: Any, session: Any, executor: Any, *, waits_for_room: bool = False) -> dict[str, Any]:
        """The answer; given up when nobody wants it any more."""
        since = time.monotonic()
        told = False
        while not ray.wait([reference], timeout=_LOOK_AGAIN)[0]:
            if self._closed or executor.life > 1:
                raise ClosedError(f"session {session.session_id} was closed before its executor had started")
            if waits_for_room:
                self._make_room(session)
                if not told and time.monotonic() - since > 10:
                    told = True
                    self._services.observe(Event("executor.waiting", time.time(), session.session_id, 0, "for room in the Ray cluster"))
        try:
            return read(ray.get(reference))
        except RayError as error:
            raise WorkerStartError(f"the executor's actor was lost while it started ({type(error).__name__}: {error})") from error

    def _package(self, application: Application) -> list[Any]:
        """A list of the reference to what of its package stands on this machine, if anything does."""
        package = application.package
        if package is None:
            return []
        with self._lock:
            if package.digest not in self._packages or not package.digest:
                data = export_package(self._services.root, package)
                self._packages[package.digest] = None if data is None else ray.put(data)
            reference = self._packages[package.digest]
        return [] if reference is None else [reference]

    def start_order(self, application: Application) -> dict[str, Any]:
        """The node says all of it."""
        return {}

    def python_of(self, application: Application) -> str:
        return self._pythons.get(application.name, "python")

    def release(self, executor: Any) -> str:
        worker = self._workers.get(executor)
        self._forget(executor)
        return worker.tail if worker is not None else ""

    def _forget(self, executor: Any) -> None:
        worker = self._workers.pop(executor, None)
        if worker is None:
            return
        kind = self._actors.pop(worker.actor, None)
        worker.close()
        if kind is None or kind[1] is not None or not worker.leaves_actor or not self._spare.keep(kind, worker.actor):
            self._end_after(worker.actor, worker.pending, time.monotonic() + _HAND_OVER)

    def _end_after(self, actor: Any, pending: list[Any], until: float) -> None:
        """What it has made is handed over first."""
        ready = ray.wait(pending, num_returns=len(pending), timeout=0, fetch_local=False)[0] if pending else []
        if len(ready) < len(pending) and not self._closed and time.monotonic() < until:
            self._supervisor.later(0.05, lambda: self._end_after(actor, pending, until))
        else:
            end(actor)

    def renew(self, application: Application) -> None:
        """Each executor provisions for itself."""

    def release_environment(self, application: str) -> None:
        """Each executor has a lease of its own, which ends with it."""

    def end_workers(self) -> None:
        self._closed = True
        self._spare.close()
        for actor in list(self._actors):
            end(actor)

    def close(self) -> None:
        for executor in list(self._workers):
            self._forget(executor)
        self._packages.clear()


class Spare:
    """Actors whose worker has ended, kept for a moment: to start one takes Ray a second or more. Those that hold a part of the cluster
    are not kept."""

    def __init__(self, most: int, later: Callable[[float, Callable[[], object]], object]) -> None:
        self._most = most
        self._later = later
        self._actors: list[tuple[object, Any]] = []
        self._lock = threading.Lock()

    def take(self, kind: object) -> Any | None:
        with self._lock:
            for entry in self._actors:
                if entry[0] == kind:
                    self._actors.remove(entry)
                    return entry[1]
        return None

    def keep(self, kind: object, actor: Any) -> bool:
        """Whether there was room for it."""
        entry = (kind, actor)
        with self._lock:
            if len(self._actors) >= self._most:
                return False
            self._actors.append(entry)
        self._later(_SPARE, lambda: self._drop(entry))
        return True

    def _drop(self, entry: tuple[object, Any]) -> None:
        with self._lock:
            if not any(other is entry for other in self._actors):
                return
            self._actors.remove(entry)
        end(entry[1])

    def close(self) -> None:
        with self._lock:
            self._most = 0
            actors, self._actors = self._actors, []
        for _, actor in actors:
            end(actor)


def end(actor: Any) -> None:
    """With all that runs in it; nothing is asked of one that is gone already."""
    if ray.is_initialized():
        with contextlib.suppress(RayError):
            ray.kill(actor)
