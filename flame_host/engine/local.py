"""The local engine: sessions on worker processes of this machine."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from pathlib import Path
from typing import Any

from flame_host._private import make_private
from flame_host.api import (
    Application,
    Capabilities,
    Event,
    HostServices,
    Lease,
    ObjectStore,
    Session,
    SessionInfo,
    SessionSpec,
    decoders,
    denies,
)
from flame_host.engine.executor import Executor
from flame_host.engine.objects import SharedObjects
from flame_host.engine.output import OutputReader
from flame_host.engine.registry import Registry
from flame_host.engine.session import LocalSession
from flame_host.engine.supervisor import Supervisor
from flame_host.worker.process import Guardian, WorkerProcess
from flame_host.worker.runtime.channel import ChannelClosed

_PRIVATE = ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "PYTHONDONTWRITEBYTECODE", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__")
"""Variables about *our* interpreter, which the application's must not inherit."""


class LocalConnection:
    """Owns the guardian, the supervisor, the sessions and the leases of their environments."""

    def __init__(self, endpoint: str, services: HostServices) -> None:
        self.endpoint = endpoint
        self.services = services
        self.cores = len(os.sched_getaffinity(0))
        self.supervisor = Supervisor()
        self.objects: ObjectStore = SharedObjects(services.cache("local").open("local:"))
        self._registry = Registry(endpoint)
        self._leases: dict[str, Lease] = {}
        self._lock = threading.Lock()
        self._provisioning: dict[str, threading.Lock] = {}
        self._guardian: Guardian | None = None
        self._readers: dict[Executor, OutputReader] = {}
        self.get_application = self._registry.find_application
        self.list_applications = self._registry.applications
        self.list_sessions = self._registry.sessions
        self._start_guardian()

    # ------------------------------------------------------------------------------------------------ Connection

    def capabilities(self) -> Capabilities:
        return self.services.capabilities()

    def register_application(self, application: Application) -> None:
        self._registry.register(application)

    def unregister_application(self, name: str) -> None:
        self._registry.unregister(name)
        lease = self._leases.pop(name, None)
        if lease is not None:
            lease.release()

    def open_session(self, spec: SessionSpec) -> Session:
        application = self._registry.application(spec.application)
        session = LocalSession(self._registry.name_session(spec), application, self)
        self._registry.add_session(session)
        self.services.observe(Event("session.opened", time.time(), session.session_id))
        return session

    def get_session(self, session_id: str) -> SessionInfo:
        return self._registry.session(session_id).info()

    def close_session(self, session_id: str) -> None:
        self._registry.session(session_id).close()

    def close(self) -> None:
        if self._registry.closed:
            return
        for session in self._registry.close():
            session.close(wait=False)
        if self._guardian is not None:
            guardian = self._guardian
            self.supervisor.call(lambda: self.supervisor.forget(guardian.fileno()))
            guardian.close()
        self.supervisor.stop()
        for reader in self._readers.values():
            reader.close()
        for lease in self._leases.values():
            lease.release()
        self.objects.close()

    # ------------------------------------------------------------------------------------------------ for sessions

    def spawn(self, session: LocalSession, executor: Executor) -> WorkerProcess:
        """Provision if need be, then start a worker; its output is read from now on."""
        application = session.application
        environment = self._lease(application).environment
        variables = {key: value for key, value in os.environ.items() if key not in _PRIVATE}
        variables.update(environment.variables)
        variables.update(application.environments)
        guardian = self._guardian
        if guardian is None:
            raise ChannelClosed("the connection is closed")
        process = WorkerProcess(guardian, environment.python, variables, self._ahead(application), executor.unpark)
        self._readers[executor] = OutputReader(process, session.session_id, executor.number, self.services.log, self.supervisor)
        return process

    def _ahead(self, application: Application) -> dict[str, object]:
        """What every worker imports before its first call."""
        order = self.start_order(application)
        serializer = self.services.serializer(application.plan.serializer)
        return {"modules": [serializer.codec, *serializer.worker_modules], "paths": order["paths"], "support": order["support"]}

    def start_order(self, application: Application) -> dict[str, Any]:
        environment = self._lease(application).environment
        plan = application.plan
        variables = {"FLAME_APPLICATION": application.name}
        if environment.tree is not None:
            variables["FLAME_APP_DIR"] = str(environment.tree)
        return {
            "variables": variables,
            "cwd": str(self._working_directory(application, environment.tree)),
            "limits": {},
            "paths": [str(path) for path in environment.paths],
            "support": str(self.services.support(environment, plan)),
            "codecs": {format: serializer.codec for format, serializer in decoders(plan, self.services.serializer).items()},
            "inside": [str(path) for path in environment.paths] if denies(plan.policy, "pickle") else None,
            "format": plan.serializer,
        }

    def python_of(self, application: Application) -> str:
        lease = self._leases.get(application.name)
        return str(lease.environment.python) if lease else "python"

    def last_words(self, executor: Executor) -> str:
        reader = self._readers.get(executor)
        return reader.tail() if reader else ""

    def let_go(self, executor: Executor) -> None:
        """Read what is left of its output, then close everything it had."""

        def close() -> None:
            reader = self._readers.pop(executor, None)
            if reader is not None:
                reader.close()

        self.supervisor.call(close)

    def _lease(self, application: Application) -> Lease:
        lease = self._leases.get(application.name)
        if lease is not None:
            return lease
        with self._lock:
            turn = self._provisioning.setdefault(application.name, threading.Lock())
        with turn:
            if application.name not in self._leases:
                self._leases[application.name] = self.services.provision(application)
            return self._leases[application.name]

    def _working_directory(self, application: Application, tree: Path | None) -> Path:
        """The application's current directory: files of the package can be read there by relative names."""
        directory = Path(application.working_directory or self.services.root / "work" / application.name)
        make_private(directory)
        for entry in tree.iterdir() if tree is not None else ():
            link = directory / entry.name
            if link.is_symlink() and os.readlink(link) != str(entry):
                with contextlib.suppress(FileNotFoundError):
                    link.unlink()
            if not link.exists():
                with contextlib.suppress(FileExistsError):
                    link.symlink_to(entry)
        return directory

    def _start_guardian(self) -> None:
        guardian = self._guardian = Guardian()

        def read() -> None:
            try:
                guardian.read()
            except ChannelClosed:
                self.supervisor.forget(guardian.fileno())

        self.supervisor.read(guardian.fileno(), read)
