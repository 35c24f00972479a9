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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from flame_host import Host
from flame_host.api import (
    Application,
    Cache,
    Capabilities,
    ConfigError,
    Environment,
    Event,
    FlameError,
    Lease,
    LogRecord,
    ObjectRef,
    PackageRef,
    Payload,
    Plan,
    Resources,
    SerializationError,
    Serializer,
    SessionSpec,
    buffer_view,
)
from flame_host.engine.local import LocalConnection
from flame_host.engine.session import LocalSession
from flame_host.serve import defaults, formats, frames
from flame_host.serve.client_package import ClientPackages
from flame_host.serve.jobs import Ending, Job
from flame_host.serve.objects import Objects
from flame_host.serve.relay import Program, Relay
from flame_host.wire import bson
from flame_host.wire.contexts import ApplicationContext
from flame_host.wire.convert import package_of
from flame_host.wire.envelope import Tag, tag_of
from flame_host.wire.flame.v1 import types_pb2
from flame_host.wire.outcomes import OUTPUT_LIMIT, failure_of, failure_of_report

log = logging.getLogger(__name__)

_CODE = "cloudpickle/1"
_REFERENCE = b"REF\x00"


@dataclass(frozen=True)
class Outcome:
    """What a task came to: an output, or why there is none."""

    output: bytes | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Opening:
    """What is needed to run a session. ``variables`` are told to every program."""

    session_id: str
    name: str
    application: types_pb2.ApplicationSpec
    spec: types_pb2.SessionSpec


class Running(Protocol):
    """A session that has executors, or gets them when there is work."""

    @property
    def engine(self) -> LocalSession: ...

    def submit(self, job: Job) -> None:
        """Raises `FlameError` when its input is of no use."""
        ...

    def outcome(self, job: Job, ending: Ending) -> Outcome: ...

    def close(self) -> None:
        """End the executors; takes a moment."""
        ...


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
            return _StockSession(self, opening, data)
        return _ProgramSession(self, opening, data)

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
        return Plan(serializers=(frames.FORMAT, _CODE))

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
        version = _python_version(spec)
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


# ---------------------------------------------------------------------------------------------------- kinds of sessions


class _StockSession:
    """A Runner session of a stock client."""

    def __init__(self, executors: Executors, opening: Opening, data: bytes | None) -> None:
        self._objects = executors.objects
        self._prefix = f"{opening.name}/{opening.session_id}"
        self._key = bson.decode_reference(data).key if data and tag_of(data) is Tag.REFERENCE else ""
        if not data or tag_of(data) not in (Tag.REFERENCE, Tag.PICKLE):
            raise SerializationError(
                f"the session's common data is {tag_of(data).value}; it must hold a RunnerContext", hint="open the session with a Runner"
            )
        self._serializer = executors.host.serializer(_CODE)
        spec = opening.application
        version = _python_version(spec)
        client = executors.clients.get(version)
        self._client = str(client.packages) if client else ""
        application = Application(
            name=opening.name,
            package=executors.package(spec.url, opening.name) if spec.url and spec.installer else None,
            plan=executors.plan(),
            python_version=version,
            working_directory=spec.working_directory,
            environments={**{pair.name: pair.value for pair in spec.environments}, **executors.variables},
        )
        context = self._objects.get(self._key).data if self._key else data
        self.engine = executors.engine_session(opening, application, self._payload(context))

    def _payload(self, context: bytes) -> Payload:
        return Payload(_CODE, self._serializer.dumps(_Carried(context, self._client)), ())

    def submit(self, job: Job) -> None:
        self.engine.submit(job, "invoke", frames.join((str(job.task_id).encode(), job.input)))

    def outcome(self, job: Job, ending: Ending) -> Outcome:
        return _outcome(ending, self._kept)

    def _kept(self, output: bytes | None, state: bytes | None) -> bytes | None:
        if state is not None:
            if self._key:
                self._objects.put(self._key, state)
            self.engine.spec = replace(self.engine.spec, common_data=self._payload(state))  # what the next worker begins with
        if output is None:
            return None
        if output.startswith(_REFERENCE):
            return output[len(_REFERENCE) :]
        stored = self._objects.put(self._prefix, output)
        return bson.encode_reference(ObjectRef(self._objects.endpoint, stored.key, stored.version))

    def close(self) -> None:
        self.engine.close()


class _Carried:
    """`served_worker.Served` on its way: by its source, for there is nothing of ours to import where it goes."""

    def __init__(self, context: bytes, client: str) -> None:
        self._context, self._client = context, client

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        names = {"__name__": "flame_host_served"}
        code = "(exec(compile(source, '<flame_host.serve.served_worker>', 'exec'), names), names['Served'](context, client))[1]"
        return eval, (code, {"source": _source(), "context": self._context, "client": self._client, "names": names})


@lru_cache(maxsize=1)
def _source() -> str:
    return Path(__file__).with_name("served_worker.py").read_text(encoding="utf-8")


class _ProgramSession:
    """A session whose application serves ``flame.v1.Instance`` itself."""

    def __init__(self, executors: Executors, opening: Opening, data: bytes | None) -> None:
        program, self._lease = executors.program(opening, data)
        serializer = executors.host.serializer(_CODE)
        # A command tells `_Services` that the worker is one of ours. Its package and its variables are the program's business.
        application = Application(name=opening.name, plan=executors.plan(), command=program.command or "-")
        self.engine = executors.engine_session(opening, application, Payload(_CODE, serializer.dumps(_Ordered(program)), ()))

    def submit(self, job: Job) -> None:
        self.engine.submit(job, "invoke", frames.join((str(job.task_id).encode(), job.input)))

    def outcome(self, job: Job, ending: Ending) -> Outcome:
        return _outcome(ending, lambda output, state: output)

    def close(self) -> None:
        self.engine.close()
        if self._lease is not None:
            self._lease.release()


class _Ordered:
    """A `Relay` to be made in a worker."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return Relay, (self._program,)


def _outcome(ending: Ending, kept: Callable[[bytes | None, bytes | None], bytes | None]) -> Outcome:
    """Of a worker that speaks `frames`: output, state, failure."""
    failure = _failure(ending)
    if failure is not None:
        return Outcome(failure=failure)
    try:
        whole = ending.data if not ending.buffers else b"".join([ending.data, *map(buffer_view, ending.buffers)])
        output, state, text = frames.split(whole)
    except ValueError as error:
        return Outcome(failure=f"the worker's answer cannot be read: {error}")
    if text is not None:
        return Outcome(failure=text.decode("utf-8", "replace"))
    try:
        output = kept(output, state)
    except FlameError as error:
        return Outcome(failure=f"the result cannot be kept: {error}")
    if output is not None and len(output) > OUTPUT_LIMIT:
        return Outcome(failure=f"the output has {len(output)} bytes and a message carries {OUTPUT_LIMIT}; put it into the cache")
    return Outcome(output)


def _failure(ending: Ending) -> str | None:
    if ending.report is not None:
        return failure_of_report(ending.report).text
    return failure_of(ending.error).text if ending.error is not None else None


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


def _python_version(spec: types_pb2.ApplicationSpec) -> str:
    """What the application's variables ask for, or the cluster's: the server's own. Its files may name another, which is nobody's
    business here: pickled functions of one version crash the interpreter of another."""
    asked = next((pair.value.removeprefix("python") for pair in spec.environments if pair.name == "FLAME_PYTHON_VERSION"), "")
    return asked or f"{sys.version_info.major}.{sys.version_info.minor}"


__all__: Sequence[str] = ["Executors", "Opening", "Outcome", "Running", "make_host"]


def _place_of_sockets() -> Path:
    """In the directory for temporary files, for paths of sockets have 107 bytes. Those of servers that were killed are removed."""
    for left in Path(tempfile.gettempdir()).glob("flame-serve-*-*"):
        pid = left.name.split("-")[2]
        if pid.isdigit() and not Path("/proc", pid).exists():
            shutil.rmtree(left, ignore_errors=True)  # where it is ours to remove
    return Path(tempfile.mkdtemp(prefix=f"flame-serve-{os.getpid()}-"))
