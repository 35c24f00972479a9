"""Fetch ▸ verify ▸ unpack ▸ install: from a package's reference to an environment that a worker can start in.

Three keys: the package's is its content; the tree's is the package's; the environment's is what is installed in it, by which tool,
on which interpreter. A change of the code makes a new tree and finds the environment it had.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import shutil
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flame_host._packages.directories import ContentStore, Entry
from flame_host._packages.files import FORMAT, FileStore
from flame_host._packages.identity import by_its_fragment, digest_of, digest_of_outside, key_of
from flame_host._packages.inputs import listing_digest, named_paths, requirement_inputs
from flame_host._packages.interpreters import chosen, fingerprint, version
from flame_host._packages.ours import refuse_strangers, take_out_of, without_ours
from flame_host._packages.project import Project
from flame_host._packages.seals import PLACE, remove_tree
from flame_host._packages.survey import survey
from flame_host._plugins.catalog import Catalog
from flame_host._private import make_private
from flame_host._settings import Settings
from flame_host.api import (
    Application,
    DigestMismatchError,
    Environment,
    Event,
    FlameError,
    Installer,
    InstallRequest,
    LocalProject,
    PackageNotFoundError,
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

    def __init__(
        self, settings: Settings, catalog: Catalog, observe: Observe = lambda event: None, *, foreign_clients: bool = False
    ) -> None:
        self._foreign_clients = foreign_clients
        self.store = ContentStore(settings.root)
        self.files = FileStore(settings.root, settings.limits)
        self._settings = settings
        self._catalog = catalog
        self._observe = observe
        self._anew: set[str] = set()
        self._made = False

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
        if self._made:
            from flame_host._packages.stock import tidy_once_a_day

            self._made = False
            tidy_once_a_day(self.store.root)
        return EnvironmentLease(environment, tuple(entry for entry in (tree, installed) if entry is not None))

    # ------------------------------------------------------------------------------------------------ the tree

    def _tree(self, application: Application, package: PackageRef) -> Entry:
        package = by_its_fragment(package)
        if package.digest:
            return self.store.ensure("trees", package.digest, lambda target: self._unpack(application, package, target))
        with self.store.temporary() as directory:  # only the content can name it
            archive = self._fetch(application, package, directory)
            known = replace(package, digest=digest_of(archive))
            return self.store.ensure("trees", known.digest, lambda target: self._open(application, known, archive, target))

    def _unpack(self, application: Application, package: PackageRef, target: Path) -> Mapping[str, Any]:
        if package.format == FORMAT:
            return self._lay_out(application, package, target)
        fetched = target.with_name(f".{target.name}.fetched")
        shutil.rmtree(fetched, ignore_errors=True)
        make_private(fetched)
        try:
            archive = self._fetch(application, package, fetched)
            digest = digest_of(archive)
            if digest != package.digest:
                raise DigestMismatchError(
                    f"the package at {package.url} has SHA-256 {digest}, {package.digest} was published",
                    hint="publish it again; somebody or something changed it in the store",
                ).locate(stage="verify")
            return self._open(application, package, archive, target)
        finally:
            shutil.rmtree(fetched, ignore_errors=True)

    def _lay_out(self, application: Application, package: PackageRef, target: Path) -> Mapping[str, Any]:
        """A package of this machine: a list of files that are here already."""
        self._tell("unpack", application)
        listing = Path(package.url.removeprefix("file://"))
        with _stage(application, "unpack", FORMAT):
            if not listing.is_file():
                raise PackageNotFoundError(f"there is no package at {package.url}", hint="it is packed again when its program runs again")
            digest = digest_of(listing)
            if digest != package.digest:
                raise DigestMismatchError(f"the package at {package.url} has SHA-256 {digest}, {package.digest} was published").locate(
                    stage="verify"
                )
            inside = target.with_name(f".{target.name}.tree")
            self.store.discard(inside)
            shared = self.files.unpack(listing, inside)
            target.rmdir()
            inside.rename(target)
        return {**self._read(target), "shared": shared}

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
        return self._read(target)

    def _read(self, tree: Path) -> Mapping[str, Any]:
        self._made = True
        return survey(tree)

    # ------------------------------------------------------------------------------------------------ the environment

    def _installed(self, application: Application, project: Project, tree: Entry | None) -> Entry:
        needs = project.requirements
        installer = self._catalog.installer(application.plan.installer)
        python = chosen(application, needs, installer)
        extra = without_ours(application.dependencies)
        needs = replace(needs, dependencies=without_ours(needs.dependencies))
        base = tree.path / project.root if tree is not None else Path(os.sep)
        builds = not self._builds_denied(application)
        if not builds:
            _refuse_builds(needs, base)
        key = key_of(
            installer=installer.identity(),
            python=fingerprint(python),
            platform=sysconfig.get_platform(),
            dependencies=[sorted(needs.dependencies), sorted(extra)],
            declared=[needs.settings, needs.extras, needs.groups, needs.left_out, str(needs.lock or "")],
            files=project.digest,
            outside=digest_of_outside(project, extra, base),
            built=tree.path.name if tree is not None and needs.build else "",
            sources=[*self._settings.wheelhouse, listing_digest(self._settings.wheelhouse), self._settings.offline, builds],
            **({"clients": "any"} if self._foreign_clients else {}),  # what has one is nothing for programs of ours
        )

        def install(target: Path) -> Mapping[str, Any]:
            return self._install(
                application,
                installer,
                project,
                needs,
                tree,
                InstallRequest(target, python, needs, self._log(key), extra=extra, builds=builds),
            )

        anew = application.name in self._anew
        self._anew.discard(application.name)
        return self.store.ensure("builds" if needs.build else "envs", key, install, anew=anew)

    def _install(
        self,
        application: Application,
        installer: Installer,
        project: Project,
        needs: Requirements,
        tree: Entry | None,
        request: InstallRequest,
    ) -> Mapping[str, Any]:
        from flame_host._packages.sources import put_on_path

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
        )
        with _stage(application, "install", installer.name), self._source(project, tree, request) as root:
            temporary = make_private(request.target.with_name(f".{request.target.name}.temporary"))
            variables = {**_versions(project), "TMPDIR": str(temporary)}
            request = replace(request, requirements=_absolute(needs, root), directory=root, variables=variables)
            try:
                python = installer.install(request)
            finally:
                remove_tree(temporary)
                self._tell("installed", application)
            if not self._foreign_clients:
                refuse_strangers(request.target)
        in_front = put_on_path(request.target, tree.path / project.root) if needs.build and tree is not None else []
        (request.target / "plan.json").write_text(json.dumps(asdict(application.plan), indent=2) + "\n")
        requirements = [*needs.dependencies, *request.extra, *(path.name for path in needs.files)]
        return {
            "python": str(python),
            "paths": in_front,
            "version": version(python),
            "requirements": [without_secrets(requirement) for requirement in requirements],
            "application": application.name,
            "installer": installer.identity(),
        }

    def _builds_denied(self, application: Application) -> bool:
        return denies(intersect_policies(self._settings.policy, application.plan.policy), "builds")

    @contextlib.contextmanager
    def _source(self, project: Project, tree: Entry | None, request: InstallRequest) -> Iterator[Path | None]:
        """The project to install from: a copy where anything in it is built, for build tools write into the source.

        The copy of local projects stays in the environment: what is installed as editable is imported from there.
        """
        root = tree.path / project.root if tree is not None else None
        named = [path for requirement in request.extra for path in named_paths(requirement, root)] if root is not None else []
        if tree is None or not (project.sources or any(path.is_dir() and path.is_relative_to(tree.path) for path in named)):
            yield root
            return
        stays = project.requirements.build is None
        copy = request.target / "source" if stays else request.target.with_name(f".{request.target.name}.source")
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(tree.path, copy, symlinks=True, ignore=shutil.ignore_patterns(PLACE, "__pycache__"))
        for place, _, files in os.walk(copy):
            for name in ("", *files):
                path = os.path.join(place, name)
                if not os.path.islink(path):
                    os.chmod(path, os.stat(path).st_mode | 0o200)
        root = copy / project.root
        take_out_of(requirement_inputs([root / path for path in project.requirements.files], root, files_only=True))
        try:
            yield root
        finally:
            if not stays:
                self.store.discard(copy)

    def refresh(self, name: str) -> None:
        """The next environment of an application is built anew, whatever there is."""
        self._anew.add(name)

    def _describe(self, application: Application, project: Project, tree: Entry | None, installed: Entry) -> Environment:
        python = Path(installed.facts["python"])
        root = tree.path / project.root if tree is not None else None
        paths = tuple(Path(os.path.normpath(root / path)) for path in project.requirements.source_paths) if root is not None else ()
        paths = (*map(Path, installed.facts.get("paths", ())), *paths)
        if tree is not None and tree.facts.get("metadata"):
            paths = (*paths, tree.path / PLACE)
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
            package=tree.path if tree is not None else None,
            directory=tree.path / project.directory if tree is not None else None,
        )

    def _log(self, key: str) -> Path:
        return self.store.root / "logs" / "install" / f"{key}.log"

    def _tell(self, kind: str, application: Application) -> None:
        self._observe(Event(f"provision.{kind}", time.time(), detail=application.name))


def _refuse_builds(needs: Requirements, base: Path) -> None:
    """What would be built whatever the installer is told: a project named by its directory, or an archive of sources."""
    built = [needs.build] if needs.build is not None else []
    for path in (*built, *(local.path for local in needs.locals)):
        if not (base / path).is_file() or path.suffix != ".whl":
            raise ProvisionError(
                f"{path.name or 'the project'} has to be built ({needs.origin}), which runs code of its author, "
                "and policy says builds = deny",
                hint="publish its wheel in its place, or declare its dependencies in pyproject.toml [project]",
            )


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


def _absolute(needs: Requirements, root: Path | None) -> Requirements:
    if root is None:
        return needs

    def absolute(path: Path | None) -> Path | None:
        return Path(os.path.normpath(root / path)) if path is not None else None

    return replace(
        needs,
        files=tuple(Path(os.path.normpath(root / path)) for path in needs.files),
        locals=tuple(LocalProject(local.name, Path(os.path.normpath(root / local.path))) for local in needs.locals),
        build=absolute(needs.build),
        lock=absolute(needs.lock),
        project=absolute(needs.project),
    )


def _versions(project: Project) -> dict[str, str]:
    """For build backends that would ask version control, which did not come along."""
    found = {}
    for name, its_version in project.versions.items():
        upper = name.upper().replace("-", "_").replace(".", "_")
        found[f"SETUPTOOLS_SCM_PRETEND_VERSION_FOR_{upper}"] = its_version
        if project.requirements.build is not None:
            found |= {"SETUPTOOLS_SCM_PRETEND_VERSION": its_version, "PBR_VERSION": its_version}
    return found
