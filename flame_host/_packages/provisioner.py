"""Fetch ▸ verify ▸ unpack ▸ install: from a package's reference to an environment that a worker can start in.

Three keys: the package's is its content; the tree's is the package's; the environment's is what is installed in it, by which tool,
on which interpreter. A change of the code makes a new tree and finds the environment it had.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flame_host._packages.directories import ContentStore, Entry
from flame_host._packages.project import Project, read_project
from flame_host._plugins.catalog import Catalog
from flame_host._private import make_private
from flame_host._settings import Settings
from flame_host.api import (
    Application,
    ConfigError,
    DigestMismatchError,
    Environment,
    Event,
    FlameError,
    Installer,
    InstallRequest,
    InterpreterNotFoundError,
    PackageRef,
    ProvisionError,
    Requirements,
    denies,
    intersect_policies,
    without_secrets,
)

logger = logging.getLogger("flame_host.packages")
Observe = Callable[[Event], None]


@dataclass
class EnvironmentLease:
    """See `flame_host.api.Lease`."""

    environment: Environment
    _entries: tuple[Entry, ...] = ()

    def release(self) -> None:
        for entry in self._entries:
            entry.release()


class Provisioner:
    """Makes environments in one store. Safe to use from many threads and processes at once."""

    def __init__(self, settings: Settings, catalog: Catalog, observe: Observe = lambda event: None) -> None:
        self.store = ContentStore(settings.root)
        self._settings = settings
        self._catalog = catalog
        self._observe = observe

    def provision(self, application: Application) -> EnvironmentLease:
        """An environment for the application, in use until the lease is released."""
        tree: Entry | None = None
        with _stage(application, "unpack"):
            if application.package is not None:
                tree = self._tree(application, application.package)
                project = Project.from_facts(tree.facts)
            else:
                project = Project(".", Requirements())
        with _stage(application, "install"):
            installed = self._installed(application, project, tree)
        with _stage(application, "start"):
            environment = self._describe(application, project, tree, installed)
        return EnvironmentLease(environment, tuple(entry for entry in (tree, installed) if entry is not None))

    # ------------------------------------------------------------------------------------------------ the tree

    def _tree(self, application: Application, package: PackageRef) -> Entry:
        if package.digest:
            return self.store.ensure("trees", package.digest, lambda target: self._unpack(application, package, target))
        with tempfile.TemporaryDirectory(prefix="flame-fetch-") as directory:  # only the content can name it
            archive = self._fetch(application, package, Path(directory))
            known = replace(package, digest=_digest(archive))
            return self.store.ensure("trees", known.digest, lambda target: self._open(application, known, archive, target))

    def _unpack(self, application: Application, package: PackageRef, target: Path) -> Mapping[str, Any]:
        fetched = target.with_name(f".{target.name}.fetched")
        shutil.rmtree(fetched, ignore_errors=True)
        fetched.mkdir()
        try:
            archive = self._fetch(application, package, fetched)
            digest = _digest(archive)
            if digest != package.digest:
                raise DigestMismatchError(
                    f"the package at {package.url} has SHA-256 {digest}, {package.digest} was published",
                    hint="publish it again; somebody or something changed it in the store",
                ).locate(stage="verify")
            return self._open(application, package, archive, target)
        finally:
            shutil.rmtree(fetched, ignore_errors=True)

    def _fetch(self, application: Application, package: PackageRef, directory: Path) -> Path:
        scheme, _, rest = package.url.partition(":")
        archive = directory / (rest.partition("?")[0].rstrip("/").rpartition("/")[2] or "package")
        limit = min(self._settings.limits.compressed_bytes, package.size or self._settings.limits.compressed_bytes)
        self._tell("fetch", application)
        with _stage(application, "fetch", scheme):
            self._catalog.store(scheme).fetch(package.url, archive, size_limit=limit, deadline=self._settings.fetch_seconds)
        return archive

    def _open(self, application: Application, package: PackageRef, archive: Path, target: Path) -> Mapping[str, Any]:
        from flame_host._packages.unpack.parent import recognise, unpack

        if archive.suffix == ".whl":
            shutil.copy(archive, target / archive.name)
        else:
            self._tell("unpack", application)
            archiver = recognise(archive, self._catalog.all("archivers").values())
            inside = target.with_name(f".{target.name}.tree")
            shutil.rmtree(inside, ignore_errors=True)
            with _stage(application, "unpack", archiver.name):
                try:
                    unpack(archive, inside, archiver, self._settings.limits)
                    target.rmdir()
                    inside.rename(target)
                finally:
                    if inside.exists():
                        self.store.discard(inside)
        return read_project(target).to_facts()

    # ------------------------------------------------------------------------------------------------ the environment

    def _installed(self, application: Application, project: Project, tree: Entry | None) -> Entry:
        needs = project.requirements
        installer = self._catalog.installer(application.plan.installer)
        python = self._interpreter(application, needs, installer)
        root = (tree.path / project.root) if tree is not None else Path()
        if needs.build is not None and not (root / needs.build).is_file() and self._builds_denied(application):
            raise ProvisionError(
                f"the project has to be built ({needs.origin}), which runs code of its author, and policy says builds = deny",
                hint="publish its wheel in its place, or declare its dependencies in pyproject.toml [project]",
            )
        dependencies = (*needs.dependencies, *application.dependencies)
        key = _key(
            installer=installer.identity(),
            python=_fingerprint(python),
            platform=sysconfig.get_platform(),
            dependencies=sorted(dependencies),
            files=project.digest,
            built=tree.path.name if tree is not None and needs.build else "",
            sources=[*self._settings.wheelhouse, self._settings.offline, self._builds_denied(application)],
        )
        wanted = replace(
            needs,
            dependencies=dependencies,
            files=tuple(root / path for path in needs.files),
            build=root / needs.build if needs.build else None,
        )

        def install(target: Path) -> Mapping[str, Any]:
            return self._install(application, installer, InstallRequest(target, python, wanted, self._log(key)))

        return self.store.ensure("builds" if needs.build else "envs", key, install)

    def _install(self, application: Application, installer: Installer, request: InstallRequest) -> Mapping[str, Any]:
        self._tell("install", application)
        if self._settings.wheelhouse and not self._settings.offline:
            logger.warning(
                "both a wheelhouse and an index are asked for what %s needs; of two distributions of one name the higher version wins, "
                "whoever has put it into the index (offline = true asks the wheelhouse alone)",
                application.name,
            )
        make_private(request.log.parent)
        request = replace(
            request,
            deadline=self._settings.install_seconds,
            wheelhouse=self._settings.wheelhouse,
            offline=self._settings.offline,
            builds=not self._builds_denied(application),
        )
        with _stage(application, "install", installer.name), self._build_copy(request) as ready:
            python = installer.install(ready)
        (request.target / "plan.json").write_text(json.dumps(asdict(application.plan), indent=2) + "\n")
        requirements = [*request.requirements.dependencies, *(path.name for path in request.requirements.files)]
        return {
            "python": str(python),
            "version": _version(python),
            "requirements": [without_secrets(requirement) for requirement in requirements],
            "application": application.name,
            "installer": installer.identity(),
        }

    def _builds_denied(self, application: Application) -> bool:
        return denies(intersect_policies(self._settings.policy, application.plan.policy), "builds")

    @contextlib.contextmanager
    def _build_copy(self, request: InstallRequest) -> Iterator[InstallRequest]:
        """Build in a copy: build tools write into the source, and the tree is shared."""
        source = request.requirements.build
        if source is None or source.is_file():
            yield request
            return
        copy = request.target.with_name(f".{request.target.name}.source")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(source, copy, symlinks=True)
        try:
            yield replace(request, requirements=replace(request.requirements, build=copy))
        finally:
            self.store.discard(copy)

    def _interpreter(self, application: Application, needs: Requirements, installer: Installer) -> Path:
        wanted = application.python_version.removeprefix("python")
        if wanted:
            return Path(sys.executable) if _is_ours(wanted) else installer.find_python(wanted)
        if needs.python and not _satisfies(needs.python):
            version = f"{sys.version_info.major}.{sys.version_info.minor}"
            raise InterpreterNotFoundError(
                f"the project needs Python {needs.python} ({needs.origin}), this is {version}",
                hint='name one that fits: Runner(python_version="3.x")',
            )
        return Path(sys.executable)

    def _describe(self, application: Application, project: Project, tree: Entry | None, installed: Entry) -> Environment:
        python = Path(installed.facts["python"])
        root = tree.path / project.root if tree is not None else None
        paths = tuple(root / path for path in project.requirements.source_paths) if root is not None else ()
        variables = {
            "VIRTUAL_ENV": str(installed.path),
            # Our own commands last: a Runner inside a task needs the installer's.
            "PATH": os.pathsep.join([str(python.parent), os.environ.get("PATH", os.defpath), str(Path(sys.prefix, "bin"))]),
        }
        return Environment(
            key=installed.path.name,
            python=python,
            python_version=installed.facts["version"],
            paths=paths,
            tree=root,
            variables=variables,
        )

    def _log(self, key: str) -> Path:
        return self.store.root / "logs" / "install" / f"{key}.log"

    def _tell(self, kind: str, application: Application) -> None:
        self._observe(Event(f"provision.{kind}", time.time(), detail=application.name))


@contextlib.contextmanager
def _stage(application: Application, stage: str, provider: str = "") -> Iterator[None]:
    """The one boundary where errors learn where they happened, and where a provider's own exceptions are wrapped."""
    try:
        yield
    except FlameError as error:
        error.locate(stage=stage, provider=provider, application=application.name)
        raise
    except OSError as error:
        hint = "free some space, or set FLAME_HOST_ROOT to another disk" if error.errno == 28 else ""
        raise ProvisionError(f"{type(error).__name__}: {error}", hint=hint).locate(
            stage=stage, provider=provider, application=application.name
        ) from error
    except Exception as error:
        if not provider:
            raise
        raise ProvisionError(f"{type(error).__name__}: {error}").locate(
            stage=stage, provider=provider, application=application.name
        ) from error


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _key(**parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _fingerprint(python: Path) -> str:
    """Tells one interpreter from another, and from itself after an upgrade, without starting it."""
    real = python.resolve()
    status = real.stat()
    return f"{real} {status.st_size} {status.st_mtime_ns}"


def _version(python: Path) -> str:
    """``major.minor``, as the environment's own description says it."""
    for line in (python.parent.parent / "pyvenv.cfg").read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() in ("version", "version_info"):
            return ".".join(value.strip().split(".")[:2])
    raise ProvisionError(f"{python.parent.parent} is no virtual environment: its pyvenv.cfg names no version")


def _is_ours(wanted: str) -> bool:
    return wanted in (f"{sys.version_info.major}.{sys.version_info.minor}", ".".join(map(str, sys.version_info[:3])))


def _satisfies(specifier: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(".".join(map(str, sys.version_info[:3])), prereleases=True)
    except InvalidSpecifier as error:
        raise ConfigError(f"requires-python = {specifier!r}: {error}") from error
