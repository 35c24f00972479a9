"""`build_project`: everything ``flame build`` does, as a function."""

from __future__ import annotations

import hashlib
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from flamepy._config.settings import resolve
from flamepy._package.project import checked_root
from flamepy._package.selection import OUTWARDS
from flamepy.build.archive import files_below, human_size, sizes_of, write_archive
from flamepy.build.bodies import missing_imports, provides
from flamepy.build.copying import copy_files, secrets_of
from flamepy.build.dependencies import BROUGHT_BY_FLASH, HTTP_REQUIREMENTS, Selection, install, requirements_of, resolution_order, take_over
from flamepy.build.errors import BuildError
from flamepy.build.estimate import check_size
from flamepy.build.handlers import HandlerGenerator, answers_http, check_imports
from flamepy.build.manifest import ManifestBuilder, put_together, write_manifest
from flamepy.build.modules import decisions, source_roots
from flamepy.build.record import ARTEFACTS, clean_project, remember
from flamepy.build.reports import BuildReport, CheckReport
from flamepy.build.runtime import bundle_runtime, refuse_if_there, serializer_entries
from flamepy.build.scanner import RemoteDecoratorScanner
from flamepy.build.targets import Target, target_of

__all__ = ["BuildReport", "CheckReport", "build_project", "check_project", "clean_project"]

_INSTALL_FILES = ("pyproject.toml", "requirements.txt", "setup.py", "setup.cfg", "PKG-INFO")
"""Left out at the root: what they ask for is in the archive, and a host that reads them would install it a second time."""

Progress = Callable[[str], None]


@dataclass
class _Build:
    root: Path
    excludes: tuple[str, ...]
    progress: Progress
    no_deps: bool = False
    kept: Path | None = None
    notes: list[str] = field(default_factory=list)

    @property
    def artefacts(self) -> Path:
        return self.root / ARTEFACTS

    @property
    def directory(self) -> Path:
        return self.artefacts / ".build"

    @property
    def installed(self) -> Path:
        return self.artefacts / ".deps"


@dataclass(frozen=True)
class _Found:
    """What was read of the project."""

    scanner: RemoteDecoratorScanner
    manifest: dict[str, Any]
    codecs: list[str]
    selection: Selection
    target: Target
    limit: int


def build_project(
    project: str | Path = ".",
    *,
    output: str | Path = "archive.tar.gz",
    no_deps: bool = False,
    keep_build: bool = False,
    exclude: Sequence[str] = (),
    python: str = "",
    platform: str = "",
    target: str = "",
    without: Sequence[str] = (),
    progress: Progress | None = None,
    size_limit: int | None = None,
    kept: Path | None = None,
) -> BuildReport:
    """Scan, generate, install, archive. Building the same files again gives the same bytes.

    Args:
        output: a bare name goes into ``.flash/``; a path is taken as it is.
        no_deps: install the named requirements only, for images that have the rest.
        keep_build: leave ``.flash/.build`` to look at.
        exclude: patterns as in ``.gitignore``.
        target: kind of workers, by its name in `flamepy.build.targets`; by default that of the SDK the program is written for.
        python, platform: what the archive is for, by default what the target has.
        without: distributions that are not installed, even where others depend on them.
        size_limit: most bytes of the archive, by default what the target takes.
        kept: directory where installed dependencies are kept for the next build that wants the same.

    Raises:
        BuildError: with every problem of the project. FlameError: anything else. No archive is left behind by either.
    """
    root = checked_root(project)
    build = _Build(root, tuple(exclude), progress or (lambda text: None), no_deps, kept)
    given = Path(output)
    archive = build.artefacts / given if given.name == str(output) else given.expanduser().absolute()
    if not archive.name.endswith((".tar.gz", ".tgz")):
        raise BuildError(f"the archive is a tar.gz, but it is to be called {archive.name!r}", hint="let --output end in .tar.gz")
    archive.unlink(missing_ok=True)
    try:
        report = _build(build, archive, _read(build, target, python, platform, without, size_limit))
    finally:
        shutil.rmtree(build.installed, ignore_errors=True)
        for left in build.artefacts.glob(".deps.*"):
            left.unlink()
        if not keep_build:
            shutil.rmtree(build.directory, ignore_errors=True)
        if build.artefacts.is_dir() and not any(build.artefacts.iterdir()):
            build.artefacts.rmdir()
    return report


def check_project(
    project: str | Path = ".",
    *,
    exclude: Sequence[str] = (),
    python: str = "",
    platform: str = "",
    target: str = "",
    without: Sequence[str] = (),
    size_limit: int | None = None,
) -> CheckReport:
    """Tell what a build would be of, and how much it would download. Nothing is installed or written.

    Raises:
        BuildError: with every problem that can be seen by reading.
    """
    import tempfile

    build = _Build(checked_root(project), tuple(exclude), lambda text: None)
    found = _read(build, target, python, platform, without, size_limit)
    with tempfile.TemporaryDirectory(prefix="flame-check-") as directory:
        size = _estimate(build, found, Path(directory))
    return CheckReport(found.manifest, found.selection.requirements, size, tuple(build.notes))


# ---------------------------------------------------------------------- reading


def _read(build: _Build, target: str, python: str, platform: str, without: Sequence[str], size_limit: int | None) -> _Found:
    build.progress("looking for @remote functions")
    for directory in source_roots(build.root):
        refuse_if_there(build.root / directory)  # the scanner would take it for us
    scanner = RemoteDecoratorScanner(build.root, build.excludes)
    functions = scanner.discover_remote_functions()
    build.notes += scanner.notes
    if not functions:
        raise BuildError(
            f"no @remote function was found in {build.root}",
            hint="write  from flamepy import remote  and decorate one; is its file left out by an ignore file?",
        )
    chosen = target_of(target, python, platform, flash=bool(scanner.stand_ins))
    policy = dict(resolve(build.root, {"storage": "file:///"}).policy)
    serializers, codecs, more = serializer_entries(policy)
    facts: dict[str, Any] = {"source_paths": list(source_roots(build.root)), "serializers": serializers}
    facts |= {"policy": policy} if policy else {}
    facts["python"] = chosen.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    facts |= {key: value for key, value in (("platform", chosen.platform), ("target", chosen.name)) if value}
    relative = [replace(function, file_path=function.file_path.relative_to(build.root)) for function in functions]
    manifest = ManifestBuilder(build.root.name, relative, facts=facts).build()
    build.notes += put_together(relative)
    needed = [*(HTTP_REQUIREMENTS if any(map(answers_http, manifest["resources"].values())) else ()), *_brought(build, scanner)]
    requirements = requirements_of(build.root, [*_declared(manifest), *more], needed)
    selection = Selection(tuple(requirements), _left_out(build, manifest, chosen, without), build.no_deps)
    _note_to_set(build, manifest)
    return _Found(scanner, manifest, codecs, selection, chosen, size_limit or chosen.size_limit)


def _brought(build: _Build, scanner: RemoteDecoratorScanner) -> list[str]:
    """What the SDK a program is written for would have brought along, as far as the program imports it."""
    if not scanner.stand_ins:
        return []
    places = [build.root / root for root in source_roots(build.root)]
    names = [name for name in sorted(scanner.imported & BROUGHT_BY_FLASH.keys()) if not any(provides(place, name) for place in places)]
    return [BROUGHT_BY_FLASH[name] for name in names]


def _declared(manifest: Mapping[str, Any]) -> list[str]:
    return [line for resource in manifest["resources"].values() for line in resource["dependencies"]]


def _left_out(build: _Build, manifest: Mapping[str, Any], target: Target, without: Sequence[str]) -> frozenset[str]:
    """Distributions by request, and those that the image of the target's GPU workers has."""
    has_gpu = any(resource.get("gpu") for resource in manifest["resources"].values())
    return frozenset(name.strip().lower().replace("_", "-") for name in without) | (target.image if has_gpu else frozenset())


def _note_to_set(build: _Build, manifest: Mapping[str, Any]) -> None:
    for name, resource in manifest["resources"].items():
        for variable, about in (resource.get("env_to_set") or {}).items():
            default = "it has no default" if about["default"] is None else f"its default is {about['default']!r}"
            source = f", which the program takes from {about['from']}" if about["from"] not in ("", variable) else ""
            build.notes.append(f"to set where {name} runs: {variable}{source}; {default}")


def _estimate(build: _Build, found: _Found, directory: Path) -> int | None:
    """Bytes to download, after a look at whether that is too much."""
    if not found.selection.requirements:
        return 0
    order = resolution_order(found.selection, directory / ".deps", found.target)
    if order is None:
        return None
    try:
        return check_size(order, directory, build.root, found.target, found.limit)
    except LookupError as error:
        # Not an error here: the installation will say what is wrong, if anything is.
        build.notes.append(f"how much is to be downloaded cannot be told: {error}")
        return None


# ---------------------------------------------------------------------- making


def _build(build: _Build, archive: Path, found: _Found) -> BuildReport:
    shutil.rmtree(build.directory, ignore_errors=True)
    build.directory.mkdir(parents=True)
    (build.artefacts / ".gitignore").write_text("*\n")
    _copy_project(build)
    installed = _install(build, found)
    bundle_runtime(build.directory, found.codecs, present=installed, stand_ins=found.scanner.stand_ins)
    handlers = _handlers(build, found)
    build.progress("writing the archive")
    digest, size = write_archive(build.directory, archive, size_limit=found.limit)
    write_manifest(found.manifest, build.artefacts / "flash_manifest.json")
    remember(build.artefacts, archive, digest, size)
    return BuildReport(
        archive, digest, size, len(files_below(build.directory)), found.manifest, tuple(path.name for path in handlers),
        found.selection.requirements, sizes_of(build.directory), tuple(build.notes),
    )  # fmt: skip


def _copy_project(build: _Build) -> None:
    made = decisions(build.root, build.excludes)
    files = [decision.path for decision in made if decision.included and decision.path not in _INSTALL_FILES]
    build.progress(f"copying {len(files)} files")
    # Links that a Runner leaves out with a line: an archive without them would be found wanting where nobody sees the line.
    copy_files(build.root, [*files, *(decision.path for decision in made if decision.reason == OUTWARDS)], build.directory)
    secrets = secrets_of(made)
    if secrets:
        build.notes.append(f"left out, for they look like secrets: {', '.join(secrets)}")
    reasons = {decision.reason for decision in made}
    unused = [pattern for pattern in build.excludes if f"exclude: {pattern}" not in reasons]
    if unused:
        build.notes.append(f"--exclude matched nothing: {', '.join(unused)}")


def _install(build: _Build, found: _Found) -> list[str]:
    selection = found.selection
    if not selection.requirements:
        return []
    known = None if build.kept is None else build.kept / _key(selection, found.target)
    if known is not None and known.is_dir():
        shutil.copytree(known, build.installed, symlinks=True)
    else:
        size = _estimate(build, found, build.artefacts)
        build.progress(f"installing {len(selection.requirements)} requirements" + (f", {human_size(size)} to download" if size else ""))
        install(selection, build.installed, build.root, found.target)
        if known is not None:
            shutil.copytree(build.installed, known, symlinks=True)
    if selection.without:
        build.notes.append(f"not installed: {', '.join(sorted(selection.without))}{' (the image has them)' if found.target.image else ''}")
    return take_over(build.installed, build.directory, source_roots(build.root))


def _key(selection: Selection, target: Target) -> str:
    """A name that stands for what is installed, as long as it is asked for in the same words."""
    told = repr((selection.requirements, sorted(selection.without), selection.no_deps, target.python, target.platform))
    return f"deps-{hashlib.sha256(told.encode()).hexdigest()[:16]}"


def _handlers(build: _Build, found: _Found) -> list[Path]:
    manifest, target = found.manifest, found.target
    handlers = HandlerGenerator(manifest, build.directory).generate_handlers()
    # Without the time, unless it is given, and the name of the directory: the archive of the same files must be the same.
    timeless = {key: value for key, value in manifest.items() if key != "generated_at" or os.environ.get("SOURCE_DATE_EPOCH")}
    write_manifest({**timeless, "project_name": _declared_name(build.root)}, build.directory / "flash_manifest.json")
    if build.no_deps:
        build.notes.append("the handlers were not tried out: the image is to bring dependencies")
        return handlers
    has_gpu = any(resource.get("gpu") for resource in manifest["resources"].values())
    present = {"runpod"} | (target.modules if has_gpu else set()) | {name.replace("-", "_") for name in found.selection.without}
    endpoints = [(function["file"], function["line"]) for entry in manifest["resources"].values() for function in entry["functions"]]
    problems = missing_imports(found.scanner.modules, endpoints, build.directory, source_roots(build.root), frozenset(present))
    if problems:
        raise BuildError(
            problems,
            hint="add it to the dependencies or to requirements.txt; if the workers' image has it, say --without and its module's name",
        )
    if not target.is_this:
        build.notes.append("the handlers were not tried out: they are for another platform or Python")
        return handlers
    build.progress(f"importing {len(handlers)} handlers")
    build.notes += check_imports(handlers, Path(sys.executable), build.directory, manifest, present)
    return handlers


def _declared_name(root: Path) -> str:
    """What the project calls itself; empty if it has no name but its directory's."""
    path = root / "pyproject.toml"
    if not path.is_file():
        return ""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    return str(tomllib.loads(path.read_text(encoding="utf-8")).get("project", {}).get("name", ""))
