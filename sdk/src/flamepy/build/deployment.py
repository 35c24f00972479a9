"""A built archive at work on this machine: unpacked by the host, each resource in worker processes of its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_host.api import Application, PackageError, PackageRef, Payload, Plan, SessionSpec
from flame_host.serverless.manifest import MANIFEST_NAME, complaint_about
from flamepy._calls.callbacks import at_once
from flamepy._calls.logs import TaskLogs
from flamepy._calls.session import SessionHandle
from flamepy._calls.submission import CallSite
from flamepy.build.handlers import streams

if TYPE_CHECKING:
    from flame_host import Host
    from flame_host.api import Connection
    from flamepy._calls.future import ObjectFuture

__all__ = ["Deployment"]

_GRACE = 0.25
_TRANSPORT = "cloudpickle/1"
_MODULE = re.compile(r"[A-Za-z0-9_-]+")
# Whoever starts the server may itself be a worker, or have an account; its endpoints must not be taken for these.
_NOT_OURS = ("FLASH_RESOURCE_NAME", "RUNPOD_ENDPOINT_ID", "FLASH_MANIFEST_PATH", "FLAME_SERVED_RESOURCE")


class Deployment:
    """The resources of one archive, ready to be given jobs. Workers start with their first job, unless the resource keeps some.

    Args:
        archive: what ``flame build`` made.
        url_of: where jobs for a resource can be posted, so that its functions can be called by the others.
        host: to unpack and run it on; by default one as the settings say. key: what its functions have to show to call each other.

    Attributes:
        manifest: of the archive.

    Raises:
        PackageError: it is no archive of a build, or one that this version cannot serve. ProvisionError: it cannot be unpacked.
    """

    def __init__(self, archive: str | Path, url_of: Callable[[str], str], *, host: Host | None = None, key: str = "") -> None:
        from flame_host import Host

        self._host = Host() if host is None else host
        self._plan = Plan(serializers=(_TRANSPORT,))
        self._key = key
        self._logs = TaskLogs()
        self._sites: dict[str, CallSite] = {}
        self._at_work: set[ObjectFuture[Any]] = set()
        self._closing = threading.Lock()
        self._undo = contextlib.ExitStack()
        package = package_of(Path(archive), self._host)
        with contextlib.ExitStack() as undo:
            tree = self._unpacked(package, "", undo)
            self.manifest = _manifest_of(tree, package)
            self._python = str(self.manifest.get("python") or "")
            self._unpacked(package, self._python, undo)  # now it is known; a Python that is missing shows here, not in the first job
            directory = Path(undo.enter_context(tempfile.TemporaryDirectory(prefix="flame-serve-")))
            undo.callback(self._host.add_log_sink(self._logs))
            connection = self._host.connect("local:")
            undo.callback(connection.close)
            endpoints = json.dumps({name: url_of(name) for name in self.resources})
            for number, name in enumerate(self.resources):
                application = self._application(name, f"serve-{os.getpid()}-{number}", package, tree, endpoints, directory)
                self._sites[name] = self._serve(connection, name, application)
            self._undo = undo.pop_all()

    @property
    def resources(self) -> Mapping[str, Any]:
        """The manifest's resources, by name."""
        resources: Mapping[str, Any] = self.manifest["resources"]
        return resources

    def home_of(self, function: object) -> str | None:
        """The resource where a function is registered; the only one, if there is only one."""
        if len(self.resources) == 1:
            return next(iter(self.resources))
        home: str | None = self.manifest["function_registry"].get(function) if isinstance(function, str) else None
        return home

    def submit(self, resource: str, job: Mapping[str, Any]) -> ObjectFuture[Any]:
        """Give a job to a resource; the future is of what its handler answers, or of a stream of that."""
        future = self._sites[resource].call("", (dict(job),), {})
        self._at_work.add(future)
        future.when_done(at_once(self._at_work.discard))
        return future

    def streams(self, resource: str) -> bool:
        """Whether its answers are streams."""
        return streams(self.resources[resource])

    def route_of(self, method: str, path: str) -> str | None:
        """The resource whose routes a request fits, the path as it is."""
        return next((name for name in self.manifest.get("routes") or {} if self.answers(name, method, path)), None)

    def answers(self, resource: str, method: str, path: str) -> bool:
        """Whether a request is for the resource's routes."""
        routes = (self.manifest.get("routes") or {}).get(resource) or {}
        given = "GET" if method == "HEAD" else method
        return any(verb in (given, "") and _fits(pattern, path) for verb, _, pattern in (route.partition(" ") for route in routes))

    def drain(self, seconds: float) -> None:
        """Close it when its jobs have ended, at most so long from now."""
        deadline = time.monotonic() + seconds
        time.sleep(_GRACE)  # somebody may have found this one, and be about to give it a job
        while self._at_work and time.monotonic() < deadline:
            time.sleep(_GRACE)
        self.close()

    def close(self) -> None:
        """End the workers, also those that are busy. Closing twice is fine."""
        with self._closing:
            self._undo.close()

    def _unpacked(self, package: PackageRef, python: str, undo: contextlib.ExitStack) -> Path:
        lease = self._host.provision(Application(name="serve", package=package, plan=self._plan, python_version=python))
        undo.callback(lease.release)
        if lease.environment.tree is None:
            raise PackageError(f"nothing was unpacked from {package.url}")
        return lease.environment.tree

    def _application(self, resource: str, name: str, package: PackageRef, tree: Path, endpoints: str, directory: Path) -> Application:
        about = self.resources[resource]
        return Application(
            name=name,
            package=package,
            plan=self._plan,
            python_version=self._python,
            working_directory=str(directory / name),
            environments={
                # None: the value was not written in the program, and is that of whoever serves it.
                **{key: str(value) for key, value in (about.get("env") or {}).items() if value is not None},
                **dict.fromkeys(_NOT_OURS, ""),
                "FLAME_RESOURCE_NAME": resource,
                "FLAME_ENDPOINTS": endpoints,
                **({"FLAME_ENDPOINT_KEY": self._key} if self._key else {}),
                "FLAME_MANIFEST_PATH": str(tree / MANIFEST_NAME),
            },
            description=f"resource {resource} of {package.url}",
        )

    def _serve(self, connection: Connection, resource: str, application: Application) -> CallSite:
        connection.register_application(application)
        about = self.resources[resource]
        fewest, most = about.get("workers") or (0, 1)
        spec = SessionSpec(
            application.name,
            Payload(
                _TRANSPORT, _by_name(about["handler_file"], "either" if resource in (self.manifest.get("routes") or {}) else "handler")
            ),
            min_instances=fewest,
            warmup=fewest,
            max_instances=most * int(about.get("max_concurrency") or 1),  # a worker process here does one job at a time
        )
        session = connection.open_session(spec)
        self._logs.watch(session.session_id, resource, "all")
        serializer = self._host.catalog.serializer(_TRANSPORT)
        source = SessionHandle(connection, session, serializer, application=application.name, label=resource, logs=self._logs)
        return CallSite(source, ordered=False)


def _fits(pattern: str, path: str) -> bool:
    """Whether a path is one of a route like ``/items/{id}`` or ``/files/{path:path}``."""
    parts = re.split(r"(\{[^}]*\})", pattern)
    expression = "".join((".+" if part.endswith(":path}") else "[^/]+") if part.startswith("{") else re.escape(part) for part in parts)
    return re.fullmatch(expression, path) is not None


def package_of(archive: Path, host: Host) -> PackageRef:
    """An archive where it stands, as the host takes it."""
    path = archive.expanduser().resolve()
    if not path.is_file():
        raise PackageError(f"there is no archive at {path}", hint="make one with  flame build")
    archivers = host.catalog.all("archivers").values()
    format = next((each.name for each in archivers if path.name.endswith(tuple(each.suffixes))), "")
    if not format:
        raise PackageError(f"{path.name} is no archive by its name", hint="name it  archive.tar.gz")
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return PackageRef(path.as_uri(), digest.hexdigest(), path.stat().st_size, format)


def _manifest_of(tree: Path, package: PackageRef) -> dict[str, Any]:
    path = tree / MANIFEST_NAME
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PackageError(f"{package.url} holds no {MANIFEST_NAME}", hint="only what  flame build  made can be served") from None
    except (OSError, ValueError, RecursionError) as error:
        raise PackageError(f"the {MANIFEST_NAME} of {package.url} cannot be read: {error}") from error
    complaint = complaint_about(manifest)
    if not complaint and not manifest.get("resources"):
        complaint = "it names no resource"
    if complaint:
        raise PackageError(f"the {MANIFEST_NAME} of {package.url} cannot be served: {complaint}")
    for name, about in manifest["resources"].items():
        file = str(about.get("handler_file") or "")
        if not _MODULE.fullmatch(file.removesuffix(".py")) or not (tree / file).is_file():
            raise PackageError(f"resource {name!r} of {package.url} has no handler: {file or 'none is named'}", hint="build it again")
    manifest.setdefault("function_registry", {})
    return dict(manifest)


def _by_name(handler_file: str, attribute: str) -> bytes:
    """A pickle that holds nothing but where the object is imported from: here the module must not be imported."""
    return f"c{handler_file.removesuffix('.py')}\n{attribute}\n.".encode()
