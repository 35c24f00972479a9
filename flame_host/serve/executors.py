"""Sessions of the cluster as sessions of the local engine: how each kind of application is run, and what its outcomes mean.

Two kinds: programs of the stock client's Runner, whose work a worker does itself (`served_worker`), and any other program, which a
worker runs and hands tasks on to (`relay`). Sessions of our own client run our own program, ``python -m flame_host``.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flame_host import Host
from flame_host.api import (
    Application,
    Cache,
    Capabilities,
    ConfigError,
    Environment,
    Event,
    Lease,
    LogRecord,
    PackageRef,
    Payload,
    Plan,
    Resources,
    Serializer,
    SessionSpec,
)
from flame_host.engine.local import LocalConnection
from flame_host.engine.session import LocalSession
from flame_host.serve import defaults, formats, frames
from flame_host.serve.client_package import ClientPackages
from flame_host.serve.objects import Objects
from flame_host.serve.relay import Program
from flame_host.serve.running import CODE, Opening, ProgramSession, Running, StockSession, python_version
from flame_host.wire.contexts import ApplicationContext
from flame_host.wire.convert import package_of
from flame_host.wire.envelope import Tag, tag_of
from flame_host.wire.flame.v1 import types_pb2

log = logging.getLogger(__name__)


class Executors:
    """The local engine, and all that its sessions need of this machine.

    Args:
        variables: told to every program: where the cluster is.
        directory: for what programs and packages need.
    """

    def __init__(self, host: Host, objects: Objects, variables: Mapping[str, str], directory: Path, *, client: str) -> None:
        self.host = host
        self.objects = objects
        self.variables = dict(variables)
        self.clients = ClientPackages(host, client)
        self.connection = LocalConnection("local:", _Services(host))
        self._directory = directory
        self._sockets = _place_of_sockets()

    # ------------------------------------------------------------------------------------------------ opening

    def open(self, opening: Opening) -> Running:
        """Provision what the program needs and open the session; takes as long as that does.

        Raises:
            FlameError: it cannot be run; says why.
        """
        data = opening.spec.common_data if opening.spec.HasField("common_data") else None
        if tag_of(data) is not Tag.ENVELOPE and defaults.runs_here(opening.application):
            return StockSession(self, opening, data)
        return ProgramSession(self, opening, data)

    def engine_session(self, opening: Opening, application: Application, common_data: Payload, **more: Any) -> LocalSession:
        """Open one in the engine, under the application as it is now."""
        application = replace(
            application,
            max_instances=opening.application.max_instances or defaults.MAX_INSTANCES,
            delay_release=float(opening.application.delay_release),
        )
        connection = self.connection
        known = connection.get_application(application.name)
        if known is None:
            connection.register_application(application)
        elif replace(known, creation_time=0.0) != replace(application, creation_time=0.0):
            connection.update_application(application)
        spec = opening.spec
        session = connection.open_session(
            SessionSpec(
                application=application.name,
                common_data=common_data,
                session_id=opening.session_id,
                min_instances=spec.min_instances,
                max_instances=spec.max_instances if spec.HasField("max_instances") else 0,
                resources=_resources(spec),
                priority=spec.priority,
                **more,
            )
        )
        assert isinstance(session, LocalSession)
        return session

    def plan(self) -> Plan:
        return Plan(serializers=(frames.FORMAT, CODE))

    def program(self, opening: Opening, data: bytes | None) -> tuple[Program, Lease | None]:
        """What a relay is to run, and what it stands on."""
        spec = opening.application
        command, arguments = defaults.program_of(spec)
        told: dict[str, str] = {"FLAME_HOST_ROOT": str(self.host.root)}
        prefixes: dict[str, str] = {}
        lease: Lease | None = None
        if tag_of(data) is Tag.ENVELOPE:  # a client of ours: our host knows what to do, packages included
            command, arguments = sys.executable, ("-m", "flame_host")
        else:
            told, prefixes, lease = self._installed(opening)
        context = ApplicationContext(
            name=opening.name,
            image=spec.image if spec.HasField("image") else None,
            command=spec.command if spec.HasField("command") else None,
            working_directory=spec.working_directory or None,
            url=spec.url if spec.HasField("url") else None,
            installer=spec.installer if spec.HasField("installer") else None,
        )
        program = Program(
            context=context,
            command=command,
            arguments=arguments,
            environments={pair.name: pair.value for pair in spec.environments},
            told={**self.variables, **told},
            prefixes=prefixes,
            sockets=str(self._sockets),
            work=str(self._directory / "work"),
            session_id=opening.session_id,
            common_data=data,
        )
        return program, lease

    def _installed(self, opening: Opening) -> tuple[dict[str, str], dict[str, str], Lease | None]:
        """Variables, what goes in front of variables of paths, and a lease, of what an application's installer brings."""
        spec = opening.application
        installer = spec.installer.lower()
        version = python_version(spec)
        if spec.command in defaults.PROGRAMS:
            client = self.clients.get(version)
            return ({"FLAME_CLIENT_PYTHON": str(client.python)} if client else {}), {}, None
        if not installer:
            return {}, {}, None
        if installer not in ("python", "binary"):
            raise ConfigError(f"application {opening.name!r} wants installer {spec.installer!r}", hint="python, binary, or none")
        lease = None
        if spec.url:
            application = Application(name=opening.name, package=self.package(spec.url, opening.name), plan=Plan(), python_version=version)
            lease = self.host.provision(application)
        if installer == "binary":
            tree = str(lease.environment.tree) if lease else ""
            prefixes = {"PATH": f"{tree}/bin:{tree}", "LD_LIBRARY_PATH": f"{tree}/libs:{tree}/lib"} if tree else {}
            return ({"FLAME_APP_DIR": tree} if tree else {}), prefixes, lease
        client = self.clients.get(version)
        python = lease.environment.python if lease else client.python if client else Path(sys.executable)
        packages = [str(path) for path in lease.environment.paths] if lease else []
        packages += [str(client.packages)] if client else []
        told = {"FLAME_PYTHON_VERSION": version}
        return told, {"PATH": str(python.parent), "PYTHONPATH": os.pathsep.join(packages)}, lease

    def package(self, url: str, name: str) -> PackageRef:
        """A package by its URL; one that stands in our own cache is taken from there."""
        archivers = self.host.catalog.all("archivers")
        reference = package_of(url, archivers)
        parts = urlsplit(url)
        if parts.scheme not in ("grpc", "grpcs", "grpc+tls"):
            return reference
        if url.rpartition(parts.path)[0] not in (self.objects.endpoint, self.objects.endpoint.replace("grpc+tls", "grpcs")):
            raise ConfigError(f"the package at {url} is in another cluster's cache", hint=f"put it into {self.objects.endpoint}")
        content = self.objects.get(parts.path.lstrip("/")).data
        digest = hashlib.sha256(content).hexdigest()
        file = self._directory / "packages" / name / digest / Path(parts.path).name
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{file.name}.{os.getpid()}")
            part.write_bytes(content)
            part.rename(file)
        return PackageRef(file.as_uri(), digest, len(content), reference.format)

    # ------------------------------------------------------------------------------------------------ afterwards

    def forget(self, name: str) -> None:
        """An application is registered no more."""
        if self.connection.get_application(name) is not None:
            self.connection.unregister_application(name)
        shutil.rmtree(self._directory / "packages" / name, ignore_errors=True)

    def close(self) -> None:
        self.connection.close()
        self.clients.close()
        for path in self._sockets.glob("*"):
            path.unlink(missing_ok=True)
        self._sockets.rmdir()


# ---------------------------------------------------------------------------------------------------- parts


class _Services:
    """The host, to an engine some of whose workers are the server's own."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.root = host.root
        self.capabilities: Callable[[], Capabilities] = host.capabilities
        self.support = host.support
        self.serializer: Callable[[str], Serializer] = host.serializer
        self.cache: Callable[[str], Cache] = host.cache
        self.log: Callable[[LogRecord], None] = host.log
        self.observe: Callable[[Event], None] = host.observe

    def provision(self, application: Application) -> Lease:
        if application.command:
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            return _OwnLease(Environment("", Path(sys.executable), python_version=version))
        return self._host.provision(application)


@dataclass(frozen=True)
class _OwnLease:
    environment: Environment

    def release(self) -> None:
        """The server's interpreter stays."""


def make_host(**overrides: Any) -> Host:
    """A host that also speaks `frames`, and takes programs of other clients."""
    return Host(plugins=[("flame-host-serve", formats)], foreign_clients=True, **overrides)


def _resources(spec: types_pb2.SessionSpec) -> Resources | None:
    """Counted only where they are told: those a cluster fills in would leave a small machine idle."""
    if spec.HasField("resreq"):
        return Resources(cpu=spec.resreq.cpu, memory=spec.resreq.memory, gpu=spec.resreq.gpu)
    return Resources() if spec.priority else None


def _place_of_sockets() -> Path:
    """In the directory for temporary files, for paths of sockets have 107 bytes. Those of servers that were killed are removed."""
    for left in Path(tempfile.gettempdir()).glob("flame-serve-*-*"):
        pid = left.name.split("-")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)  # where it is ours to remove
    return Path(tempfile.mkdtemp(prefix=f"flame-serve-{os.getpid()}-"))
