"""`build_project`: everything ``flame build`` does, as a function."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from flamepy._config.settings import resolve
from flamepy._package.project import checked_root
from flamepy.build.archive import files_below, sizes_of, write_archive
from flamepy.build.dependencies import Target, install, requirements_of, take_over
from flamepy.build.errors import BuildError
from flamepy.build.handlers import HandlerGenerator, check_imports
from flamepy.build.manifest import ManifestBuilder, write_manifest
from flamepy.build.modules import decisions, source_roots
from flamepy.build.runtime import bundle_runtime, refuse_if_there, serializer_entries
from flamepy.build.scanner import RemoteDecoratorScanner, RemoteFunctionMetadata

__all__ = ["BuildReport", "build_project", "clean_project"]

SIZE_LIMIT = 500 << 20
ARTEFACTS = ".flash"
_INSTALL_FILES = ("pyproject.toml", "requirements.txt", "setup.py", "setup.cfg", "PKG-INFO")
"""Left out at the root: what they ask for is in the archive, and a host that reads them would install it a second time."""

Progress = Callable[[str], None]


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        digest: SHA-256 of the archive. size: its bytes. files: how many are in it.
        handlers: their files, by resource. dependencies: requirements that were installed.
        sizes: bytes before compression, by top-level name.
        notes: what the user should know, although it is no error.
    """

    archive: Path
    digest: str
    size: int
    files: int
    manifest: Mapping[str, Any]
    handlers: tuple[str, ...]
    dependencies: tuple[str, ...]
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {**asdict(self), "archive": str(self.archive), "handlers": list(self.handlers), "dependencies": list(self.dependencies)}


@dataclass
class _Build:
    root: Path
    excludes: tuple[str, ...]
    target: Target
    no_deps: bool
    progress: Progress
    notes: list[str]

    @property
    def artefacts(self) -> Path:
        return self.root / ARTEFACTS

    @property
    def directory(self) -> Path:
        return self.artefacts / ".build"


def build_project(
    project: str | Path = ".",
    *,
    output: str | Path = "archive.tar.gz",
    no_deps: bool = False,
    keep_build: bool = False,
    exclude: Sequence[str] = (),
    python: str = "",
    platform: str = "",
    progress: Progress | None = None,
    size_limit: int = SIZE_LIMIT,
) -> BuildReport:
    """Scan, generate, install, archive. Building the same files again gives the same bytes.

    Args:
        output: a bare name goes into ``.flash/``; a path is taken as it is.
        no_deps: install the named requirements only, for images that have the rest.
        keep_build: leave ``.flash/.build`` to look at.
        exclude: patterns as in ``.gitignore``.
        python, platform: what the archive is for, by default this machine.

    Raises:
        BuildError: with every problem of the project. FlameError: anything else. No archive is left behind by either.
    """
    root = checked_root(project)
    build = _Build(root, tuple(exclude), Target(python, platform), no_deps, progress or (lambda text: None), [])
    given = Path(output)
    archive = build.artefacts / given if given.name == str(output) else given.expanduser().absolute()
    if not archive.name.endswith((".tar.gz", ".tgz")):
        raise BuildError(f"the archive is a tar.gz, but it is to be called {archive.name!r}", hint="let --output end in .tar.gz")
    archive.unlink(missing_ok=True)
    try:
        report = _build(build, archive, size_limit)
    finally:
        shutil.rmtree(build.artefacts / ".deps", ignore_errors=True)
        (build.artefacts / ".deps.txt").unlink(missing_ok=True)
        if not keep_build:
            shutil.rmtree(build.directory, ignore_errors=True)
    return report


def _build(build: _Build, archive: Path, size_limit: int) -> BuildReport:
    build.progress("looking for @remote functions")
    for directory in source_roots(build.root):
        refuse_if_there(build.root / directory)  # the scanner would take it for us
    functions = RemoteDecoratorScanner(build.root, build.excludes).discover_remote_functions()
    if not functions:
        raise BuildError(
            f"no @remote function was found in {build.root}",
            hint="write  from flamepy import remote  and decorate one; is its file left out by an ignore file?",
        )
    manifest, modules, more = _manifest(build, functions)
    _start_over(build)
    _copy_project(build)
    requirements = requirements_of(build.root, [*_declared(manifest), *more])
    installed = _install(build, requirements)
    bundle_runtime(build.directory, modules, present=installed)
    handlers = _handlers(build, manifest)
    build.progress("writing the archive")
    digest, size = write_archive(build.directory, archive, size_limit=size_limit)
    write_manifest(manifest, build.artefacts / "flash_manifest.json")
    report = BuildReport(
        archive, digest, size, len(files_below(build.directory)), manifest, tuple(path.name for path in handlers), tuple(requirements),
        sizes_of(build.directory), tuple(build.notes),
    )  # fmt: skip
    record = {"archive": os.path.relpath(archive, build.artefacts), "sha256": digest, "size": size}
    (build.artefacts / "build.json").write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    return report


def _manifest(build: _Build, functions: list[RemoteFunctionMetadata]) -> tuple[dict[str, Any], list[str], list[str]]:
    policy = dict(resolve(build.root, {"storage": "file:///"}).policy)
    serializers, modules, requirements = serializer_entries(policy)
    facts: dict[str, Any] = {"source_paths": list(source_roots(build.root)), "serializers": serializers}
    if policy:
        facts["policy"] = policy
    facts["python"] = build.target.python or f"{sys.version_info.major}.{sys.version_info.minor}"
    if build.target.platform:
        facts["platform"] = build.target.platform
    relative = [replace(function, file_path=function.file_path.relative_to(build.root)) for function in functions]
    return ManifestBuilder(build.root.name, relative, facts=facts).build(), modules, requirements


def _declared(manifest: Mapping[str, Any]) -> list[str]:
    return [line for resource in manifest["resources"].values() for line in resource["dependencies"]]


def _start_over(build: _Build) -> None:
    shutil.rmtree(build.directory, ignore_errors=True)
    build.directory.mkdir(parents=True)
    (build.artefacts / ".gitignore").write_text("*\n")


def _copy_project(build: _Build) -> None:
    made = decisions(build.root, build.excludes)
    files = sorted(decision.path for decision in made if decision.included and decision.path not in _INSTALL_FILES)
    build.progress(f"copying {len(files)} files")
    for name in files:
        source, target = build.root / name, build.directory / name
        target.parent.mkdir(parents=True, exist_ok=True)
        inside = source.is_symlink() and source.resolve().is_relative_to(build.root)
        if inside and not os.path.isabs(os.readlink(source)):
            target.symlink_to(os.readlink(source))
        elif source.is_file():
            shutil.copy(source, target)
    secrets = [decision.path for decision in made if decision.secret]
    if secrets:
        build.notes.append(f"left out, for they look like secrets: {', '.join(secrets)}")
    reasons = {decision.reason for decision in made}
    unused = [pattern for pattern in build.excludes if f"exclude: {pattern}" not in reasons]
    if unused:
        build.notes.append(f"--exclude matched nothing: {', '.join(unused)}")


def _install(build: _Build, requirements: Sequence[str]) -> list[str]:
    if not requirements:
        return []
    build.progress(f"installing {len(requirements)} requirements")
    directory = build.artefacts / ".deps"
    shutil.rmtree(directory, ignore_errors=True)
    install(requirements, directory, build.root, build.target, no_deps=build.no_deps)
    return take_over(directory, build.directory, source_roots(build.root))


def _handlers(build: _Build, manifest: Mapping[str, Any]) -> list[Path]:
    handlers = HandlerGenerator(manifest, build.directory).generate_handlers()
    # Without the time, unless it is given: the archive of the same files must be the same.
    timeless = {key: value for key, value in manifest.items() if key != "generated_at" or os.environ.get("SOURCE_DATE_EPOCH")}
    write_manifest(timeless, build.directory / "flash_manifest.json")
    if not build.target.is_this or build.no_deps:
        why = "the image is to bring dependencies" if build.no_deps else "they are for another platform or Python"
        build.notes.append(f"the handlers were not tried out: {why}")
        return handlers
    build.progress(f"importing {len(handlers)} handlers")
    check_imports(handlers, Path(sys.executable), build.directory)
    return handlers


def clean_project(project: str | Path = ".") -> list[Path]:
    """Remove what builds have made; returns what was there. Files nobody here has made are left alone."""
    artefacts = checked_root(project) / ARTEFACTS
    removed: list[Path] = []
    record = artefacts / "build.json"
    named = [json.loads(record.read_text(encoding="utf-8"))["archive"]] if record.is_file() else []
    for name in (*named, ".build", ".deps", ".deps.txt", "flash_manifest.json", "build.json", ".gitignore"):
        path = artefacts / name
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        removed.append(path)
    if artefacts.is_dir() and not any(artefacts.iterdir()):
        artefacts.rmdir()
    return removed
