"""Starting workers: their environment, their variables, their order, and their output while they live."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Any, Protocol

from flame_host.api import Application, HostServices, Lease, decoders, denies
from flame_host.engine.loop import Loop
from flame_host.engine.outbox import Outbox
from flame_host.engine.output import OutputReader
from flame_host.engine.process import LocalProcess, Process
from flame_host.engine.shares import Share
from flame_host.engine.working_directory import WorkingDirectories
from flame_host.worker.process import Guardian
from flame_host.worker.runtime.channel import ChannelClosed

if TYPE_CHECKING:
    from flame_host.engine.executor import Executor
    from flame_host.engine.session import LocalSession

_PRIVATE = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables about *our* interpreter, which the application's must not inherit."""


class Seat(Protocol):
    """Whom a worker is started for: an executor, or on another machine what stands for one."""

    number: int
    share: Share | None

    def process_ended(self) -> None: ...


class Sitting(Protocol):
    """The session of a seat."""

    session_id: str
    application: Application


class Launching(Protocol):
    """What starts the workers of a connection's sessions."""

    def spawn(self, session: LocalSession, executor: Executor) -> Process:
        """Provision if need be, then start a worker. In a thread of the executor's own, so it may take its time."""
        ...

    def start_order(self, application: Application) -> dict[str, Any]:
        """What of a worker's START the launcher has to say; the session adds its own."""
        ...

    def python_of(self, application: Application) -> str:
        """The interpreter, for messages."""
        ...

    def release(self, executor: Executor) -> str:
        """Its worker has ended: let go of all that was its, and return the last of what it printed."""
        ...

    def renew(self, application: Application) -> None: ...
    def release_environment(self, application: str) -> None: ...
    def end_workers(self) -> None:
        """All of them, now; no more are started."""
        ...

    def close(self) -> None:
        """After the loops have ended."""
        ...


class Launcher:
    """Owns the guardian, the leases of environments, and the readers of workers' output."""

    def __init__(self, services: HostServices, supervisor: Loop, io: Loop) -> None:
        self._services = services
        self._supervisor = supervisor
        self._io = io
        self._leases: dict[tuple[str, str], Lease] = {}
        self._retired: list[tuple[str, Lease]] = []
        self._failures: dict[tuple[str, str], BaseException] = {}
        self._turns: dict[tuple[str, str], threading.Lock] = {}
        self._directories = WorkingDirectories(services.root)
        self._lock = threading.Lock()
        self._readers: dict[Seat, OutputReader] = {}
        self._closed = False

        def sender(sock: socket.socket) -> Outbox:
            return Outbox(sock, io)

        self.guardian = Guardian(sender)
        supervisor.read(self.guardian.fileno(), self._listen_to_guardian)

    # ------------------------------------------------------------------------------------------------ workers

    def spawn(self, session: Sitting, executor: Seat) -> LocalProcess:
        """Provision if need be, then start a worker; its output is read from now on."""
        application = session.application
        environment = self._lease(application, session.session_id).environment
        variables = {key: value for key, value in os.environ.items() if key not in _PRIVATE}
        variables.update(environment.variables)
        variables.update(application.environments)
        if executor.share is not None:
            variables["CUDA_VISIBLE_DEVICES"] = ",".join(executor.share.gpus)
        process = LocalProcess(self._io, self.guardian, environment.python, variables, self._ahead(application), executor.process_ended)
        try:
            self._readers[executor] = OutputReader(process, session.session_id, executor.number, self._services.log, self._supervisor)
        except BaseException:
            process.close()  # which ends it, should it have been started
            raise
        return process

    def _ahead(self, application: Application) -> dict[str, object]:
        """What every worker imports before its first call."""
        order = self.start_order(application)
        serializer = self._services.serializer(application.plan.serializer)
        return {"modules": [serializer.codec, *serializer.worker_modules], "paths": order["paths"], "support": order["support"]}

    def start_order(self, application: Application) -> dict[str, Any]:
        environment = self._lease(application).environment
        plan = application.plan
        variables = {"FLAME_APPLICATION": application.name}
        if environment.tree is not None:
            variables["FLAME_APP_DIR"] = str(environment.tree)
        directory = self._directories.of(application, environment)
        return {
            "variables": variables,
            "cwd": str(directory.path),
            "contents": str(self._services.root / "files") if directory.has_links else "",
            "limits": {},
            "paths": [str(path) for path in environment.paths],
            "support": str(self._services.support(environment, plan)),
            "codecs": {format: serializer.codec for format, serializer in decoders(plan, self._services.serializer).items()},
            "inside": [str(path) for path in environment.paths] if denies(plan.policy, "pickle") else None,
            "format": plan.serializer,
        }

    def python_of(self, application: Application) -> str:
        lease = self._leases.get(_package_of(application))
        return str(lease.environment.python) if lease else "python"

    def release(self, executor: Seat) -> str:
        """In the supervisor's thread: read what is left of its output, close everything it had, and return the last of what it said."""
        reader = self._readers.pop(executor, None)
        if reader is None:
            return ""
        reader.close()
        return reader.tail()

    # ------------------------------------------------------------------------------------------------ environments

    def _lease(self, application: Application, session_id: str = "") -> Lease:
        """One attempt for each session: what has failed once fails its other workers, too, with the same reason."""
        key = _package_of(application)
        lease = self._leases.get(key)
        if lease is not None:
            return lease
        with self._lock:
            turn = self._turns.setdefault(key, threading.Lock())
        with turn:
            if key not in self._leases:
                failure = self._failures.get((application.name, session_id))
                if failure is not None:
                    raise failure.with_traceback(None)
                try:
                    lease = self._services.provision(application)
                except BaseException as error:
                    self._failures[application.name, session_id] = error
                    raise
                if self._closed:  # while that went on
                    lease.release()
                    raise ChannelClosed("the connection is closed")
                self._leases[key] = lease
            return self._leases[key]

    def renew(self, application: Application) -> None:
        """Provision again for sessions opened from now on; workers that run keep what they have."""
        retired = self._leases.pop(_package_of(application), None)
        if retired is not None:
            self._retired.append((application.name, retired))

    def release_environment(self, application: str) -> None:
        for key in [key for key in self._failures if key[0] == application]:
            del self._failures[key]
        for key in [key for key in self._leases if key[0] == application]:
            self._leases.pop(key).release()
        for entry in [entry for entry in self._retired if entry[0] == application]:
            self._retired.remove(entry)
            entry[1].release()
        self._directories.let_go(application)

    # ------------------------------------------------------------------------------------------------ end

    def end_workers(self) -> None:
        """All of them, and whatever they have started."""
        self._closed = True
        guardian = self.guardian
        done = threading.Event()

        def forget() -> None:
            self._supervisor.forget(guardian.fileno())
            done.set()

        if self._supervisor.is_current():
            forget()
        else:
            self._supervisor.call(forget)
            done.wait(5.0)  # a log handler of the user's that blocks must not keep us for ever
        guardian.close()

    def close(self) -> None:
        """After the loops have ended: nobody reads any more."""
        for reader in list(self._readers.values()):
            reader.close()
        self._readers.clear()
        for name in {key[0] for key in self._leases} | {entry[0] for entry in self._retired}:
            self.release_environment(name)
        self._directories.close()

    def _listen_to_guardian(self) -> None:
        try:
            self.guardian.read()
        except ChannelClosed:
            self._supervisor.forget(self.guardian.fileno())


def _package_of(application: Application) -> tuple[str, str]:
    """Sessions opened before an application's package was replaced go on with theirs."""
    return application.name, application.package.digest or application.package.url if application.package is not None else ""
