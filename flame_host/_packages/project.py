"""What a project needs before its code can run, read from its files. Nothing of the project is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from flame_host._packages.declared import Declaration, is_setup, is_versioned_elsewhere
from flame_host._packages.inputs import content_digest, requirement_inputs
from flame_host._packages.neighbours import Neighbourhood, look_around, split_requirement, workspace_files
from flame_host._packages.ours import is_named_in
from flame_host._packages.reading import check_requirements, head_of, parse_toml, read_toml, script_block, text_of
from flame_host._packages.tables import at, plain
from flame_host.api import ConfigError, LocalProject, ProjectNeeds, Requirements

__all__ = ["ABOUT", "Project", "Reading", "read_about", "read_project", "read_requirements", "read_toml"]

ABOUT = ".flame-package.json"
"""In a package, what the files alone do not tell: where the project is, which script runs, what was recorded while packing."""

_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "PKG-INFO")


@dataclass(frozen=True)
class About:
    """Attributes:
    root, script, directory: relative to the tree: the project, the script that ran, the current directory.
    paths: relative to the tree, the directories that modules were imported from, in order.
    versions: of projects that run from their directories.
    """

    root: str = ""
    script: str = ""
    directory: str = ""
    paths: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Project:
    """A project in an unpacked tree.

    Attributes:
        root: its directory, relative to the tree (``"."``, or the only directory at the top).
        requirements: with paths relative to that root; absolute ones are outside of the tree.
        digest: of the contents of all that decides what gets installed.
        directory: what was the current directory, relative to the tree.
        outside: what decides, too, and stands outside of the tree.
        sources: directories of the tree are installed from, so build tools will write into them.
        versions: as recorded while packing.
    """

    root: str
    requirements: Requirements
    digest: str = ""
    directory: str = ""
    outside: tuple[str, ...] = ()
    sources: bool = False
    versions: Mapping[str, str] = field(default_factory=dict)

    def to_facts(self) -> dict[str, Any]:
        facts = asdict(self.requirements)
        facts["files"] = [str(path) for path in self.requirements.files]
        facts["locals"] = [[local.name, str(local.path)] for local in self.requirements.locals]
        for name in ("build", "lock", "project"):
            facts[name] = str(facts[name]) if facts[name] is not None else None
        facts["settings"] = plain(facts["settings"])
        return {
            "root": self.root,
            "digest": self.digest,
            "directory": self.directory,
            "outside": list(self.outside),
            "sources": self.sources,
            "versions": dict(self.versions),
            "requirements": facts,
        }

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Project:
        kept = dict(facts["requirements"])
        for name in ("dependencies", "source_paths", "extras", "groups", "left_out"):
            kept[name] = tuple(kept[name])
        kept["files"] = tuple(Path(path) for path in kept["files"])
        kept["locals"] = tuple(LocalProject(name, Path(path)) for name, path in kept["locals"])
        for name in ("build", "lock", "project"):
            kept[name] = Path(kept[name]) if kept[name] is not None else None
        return cls(
            facts["root"],
            Requirements(**kept),
            facts["digest"],
            facts["directory"],
            tuple(facts["outside"]),
            facts["sources"],
            facts["versions"],
        )


@dataclass
class Reading:
    """What was found, with absolute paths.

    Attributes:
        inputs: all on disk that decides what gets installed. here: projects that run from their directories, the project itself
            among them when its metadata belongs to it. travelling: what else has to be there for installing.
    """

    requirements: Requirements
    inputs: list[Path] = field(default_factory=list)
    here: dict[str, Declaration] = field(default_factory=dict)
    travelling: list[Path] = field(default_factory=list)


def read_about(tree: Path) -> About:
    try:
        facts = json.loads(text_of(tree / ABOUT))
        about = About(**{**facts, "paths": tuple(facts.get("paths", ()))})
        _check_about(about, tree)
        return about
    except FileNotFoundError:
        return About()
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ConfigError(f"{ABOUT}: {error}", hint="it was written by another version; pack the project again") from error


def _check_about(about: About, tree: Path) -> None:
    """What it names stands below the tree, whoever wrote it."""
    places = (about.root, about.script, about.directory, *about.paths)
    if not all(isinstance(place, str) for place in places) or not isinstance(about.versions, Mapping):
        raise ValueError("it is not as we write it")
    if not all(isinstance(text, str) and text.isprintable() for pair in about.versions.items() for text in pair):
        raise ValueError("it has versions that are none")
    top = tree.resolve()
    for place in places:
        if not (tree / place).resolve().is_relative_to(top):
            raise ValueError(f"{place!r:.200} lies outside of the package")


def read_project(tree: Path) -> tuple[Project, Reading]:
    """Find the project in a tree and read what it needs.

    Raises:
        ConfigError: a file cannot be parsed or contradicts itself; names the file and, where it can, the line.
    """
    about = read_about(tree)
    root = tree / about.root if about.root else _project_root(tree)
    script = tree / about.script if about.script else None
    reading = read_requirements(root, tree, script)
    needs = reading.requirements
    if about.paths and needs.build is None:
        own = needs.source_paths if script is None else ()
        paths = [os.path.relpath(tree / path, root) for path in about.paths]
        needs = replace(needs, source_paths=tuple(dict.fromkeys((*paths, *(path for path in own if path != ".")))))
    inside = [path for path in reading.inputs if path.is_relative_to(tree)]
    outside = [str(path) for path in reading.inputs if not path.is_relative_to(tree)]
    digest = content_digest(inside, tree) if inside else ""
    directory = about.directory or os.path.relpath(root, tree)
    files = [path for path in inside if path.is_file() and path.suffix in (".txt", ".in")]
    sources = needs.build is not None or any(path.is_dir() for path in inside) or is_named_in(files)
    found = Project(os.path.relpath(root, tree), _relative(needs, root, tree), digest, directory, tuple(outside), sources, about.versions)
    return found, reading


def needs_of(root: Path, script: Path | None) -> ProjectNeeds:
    """A project outside of any package, for who packs it."""
    is_script = script is not None and has_block(script)
    reading = read_requirements(root, Path(root.anchor), script)
    travelling = tuple(path for path in dict.fromkeys([*reading.travelling, *reading.inputs]) if path.exists())
    unversioned = {name: one.directory for name, one in reading.here.items() if not one.version({})}
    if reading.requirements.build is not None and is_versioned_elsewhere(root):
        unversioned[Declaration.of(root).name or root.name] = root
    running = {name: one.directory for name, one in reading.here.items()}
    version_files = {name: one.version_file for name, one in reading.here.items() if one.version_file is not None}
    return ProjectNeeds(reading.requirements, is_script, travelling, running, unversioned, version_files)


def _relative(needs: Requirements, root: Path, tree: Path) -> Requirements:
    def inside(path: Path) -> Path:
        return Path(os.path.relpath(path, root)) if path.is_relative_to(tree) else path

    return replace(
        needs,
        files=tuple(map(inside, needs.files)),
        locals=tuple(LocalProject(local.name, inside(local.path)) for local in needs.locals),
        build=inside(needs.build) if needs.build is not None else None,
        lock=inside(needs.lock) if needs.lock is not None else None,
        project=inside(needs.project) if needs.project is not None else None,
    )


def _project_root(tree: Path) -> Path:
    """The tree, or the one directory that is all of it: ``tar -czf app.tar.gz app/``."""
    entries = [entry for entry in tree.iterdir() if entry.name != ABOUT]
    if len(entries) == 1 and entries[0].is_dir() and any((entries[0] / name).exists() for name in _PROJECT_FILES):
        return entries[0]
    return tree


def read_requirements(root: Path, top: Path, script: Path | None = None) -> Reading:
    """What the project needs.

    Args:
        top: nothing above it is looked at. script: that runs; when it carries its requirements itself, they are all.
    """
    if script is not None and has_block(script):
        return _from_script(script, root, top)
    entries = [entry.name for entry in root.iterdir() if entry.name != ABOUT]
    if len(entries) == 1 and entries[0].endswith(".whl"):
        return Reading(Requirements(build=root / entries[0], source_paths=(), origin=entries[0]))
    if (root / "PKG-INFO").is_file():
        return _built(root, "PKG-INFO (a source distribution)", top)
    if (root / "pyproject.toml").is_file():
        found = _from_pyproject(root, top)
        if found is not None:
            return found
    for name in ("setup.py", "setup.cfg"):
        if (root / name).is_file() and is_setup(root / name):
            return _built(root, name, top, _pinned(root, top), Declaration.of(root))
    _refuse_choice(Declaration.of(root))
    if (root / "pylock.toml").is_file():
        needs = Requirements(lock=root / "pylock.toml", project=root, source_paths=_source_paths(root), origin="pylock.toml")
        return Reading(replace(needs, python=_pinned(root, top)), [root / "pylock.toml"])
    if (root / "requirements.txt").is_file():
        files = (root / "requirements.txt",)
        check_requirements(top, list(files), root)
        inputs = requirement_inputs(files, root)
        needs = Requirements(files=files, source_paths=_source_paths(root), python=_pinned(root, top), origin="requirements.txt")
        return Reading(needs, inputs, travelling=inputs)
    scripts = [path for path in sorted(root.glob("*.py")) if has_block(path)]
    if len(scripts) == 1 and script is None:
        return _from_script(scripts[0], root, top)
    return Reading(Requirements(source_paths=_source_paths(root), python=_pinned(root, top), origin="no project file"))


def _built(root: Path, origin: str, top: Path, python: str = "", declaration: Declaration | None = None) -> Reading:
    """What has to be built says itself what it needs, when it is; its extras and groups are chosen, and its lock decides, all the same."""
    needs = Requirements(build=root, source_paths=(), python=python, origin=origin)
    if declaration is None:
        return Reading(needs)
    extras, groups = declaration.extras, declaration.groups
    readable = () if declaration.project is None or "optional-dependencies" in declaration.dynamic else extras
    of_groups = declaration.dependencies(readable, groups)[len(declaration.dependencies(readable)) :]
    needs = replace(needs, extras=extras, groups=groups, dependencies=tuple(of_groups))
    if declaration.project is None:
        return Reading(needs)
    around = look_around(declaration, readable, groups, top)
    lock = _lock_of(declaration, around)
    locks = [lock] if lock is not None else []
    beside = {split_requirement(requirement)[0] for requirement in of_groups} & {*around.installed, *around.running, *around.sources}
    if beside and lock is None:
        raise ConfigError(
            f"pyproject.toml: groups {', '.join(groups)} want {', '.join(sorted(beside))} from where its source says, and the project "
            "has to be built",
            hint="run  uv lock  in the project: with a lock it can be done",
        )
    return Reading(replace(needs, lock=lock, project=root), locks, travelling=_travelling(around) + locks)


def _refuse_choice(declaration: Declaration) -> None:
    """Only a project has extras and groups.

    Raises:
        ConfigError: some are chosen.
    """
    chosen = [name for name in ("extras", "groups") if declaration.flame.get(name)]
    if chosen:
        raise ConfigError(
            f"pyproject.toml [tool.flame] {' and '.join(chosen)}: there is no [project] that could have any",
            hint="write a [project] table, or name what you need in [tool.flame] dependencies",
        )


def _from_pyproject(root: Path, top: Path) -> Reading | None:
    """None when the file only configures tools."""
    declaration = Declaration.of(root)
    if declaration.project is None:
        if "build-system" in declaration.table and ((root / "setup.py").is_file() or "poetry" in at(declaration.table, "tool")):
            reading = _built(root, "pyproject.toml [build-system]", top, _pinned(root, top), declaration)
            reading.travelling = _poetry_neighbours(declaration)
            return reading
        return None
    python = _pinned(root, top) or declaration.python
    if declaration.name and not declaration.is_static:
        return _built(root, "pyproject.toml (has to be built)", top, python, declaration)
    extras, groups = declaration.extras, declaration.groups
    around = look_around(declaration, extras, groups, top)
    paths = tuple(dict.fromkeys((*declaration.source_directories, ".", *_paths_of(around, root))))
    lock = _lock_of(declaration, around)
    needs = Requirements(source_paths=paths, python=python, origin="pyproject.toml [project]", extras=extras, groups=groups)
    reading = _reading(needs, around, lock, root)
    if declaration.is_package:
        reading.here[declaration.name] = declaration
        reading.requirements = replace(reading.requirements, left_out=(declaration.name, *reading.requirements.left_out))
    return reading


def _poetry_neighbours(project: Declaration) -> list[Path]:
    found: dict[Path, None] = {}
    waiting = project.poetry_paths()
    while waiting:
        path = waiting.pop()
        if path in found:
            continue
        if not path.exists():
            raise ConfigError(
                f"pyproject.toml [tool.poetry]: a dependency's path is not there: {path}", hint="put it there, or mend the path"
            )
        found[path] = None
        waiting += Declaration.of(path).poetry_paths() if path.is_dir() else []
    return list(found)


def _reading(needs: Requirements, around: Neighbourhood, lock: Path | None, project: Path) -> Reading:
    settings = {**around.settings, **({"sources": around.sources} if around.sources else {})}
    needs = replace(
        needs,
        dependencies=tuple(dict.fromkeys(around.dependencies)),
        locals=tuple(LocalProject(name, path) for name, path in sorted(around.installed.items())),
        settings=settings,
        lock=lock,
        project=project,
        left_out=tuple(sorted(around.running)),
    )
    inputs = [*around.installed.values(), *([lock] if lock is not None else [])]
    return Reading(needs, inputs, dict(around.running), _travelling(around) + ([lock] if lock is not None else []))


def _travelling(around: Neighbourhood) -> list[Path]:
    return [*around.touched, *(workspace_files(around.workspace) if around.workspace is not None else [])]


def _paths_of(around: Neighbourhood, root: Path) -> list[str]:
    return [os.path.relpath(one.directory / path, root) for one in around.running.values() for path in one.source_directories]


def _lock_of(declaration: Declaration, around: Neighbourhood) -> Path | None:
    holder = around.workspace or declaration
    if declaration.uv.get("managed", True) and (holder.directory / "uv.lock").is_file():
        return holder.directory / "uv.lock"
    pylock = declaration.directory / "pylock.toml"
    return pylock if pylock.is_file() else None


def has_block(path: Path) -> bool:
    try:
        return path.suffix == ".py" and script_block(head_of(path), path.name) is not None
    except OSError:
        return False


def _from_script(script: Path, root: Path, top: Path) -> Reading:
    """A single file that carries its requirements in a comment (PEP 723)."""
    text = script_block(head_of(script), script.name) or ""
    table = parse_toml(text, script.name)
    project = {"dependencies": table.get("dependencies", []), "requires-python": table.get("requires-python", "")}
    declaration = Declaration(script.parent, {"project": project, "tool": at(table, "tool")})
    around = look_around(declaration, (), (), script.parent)
    around.workspace = None
    lock = script.with_name(script.name + ".lock")
    needs = Requirements(
        source_paths=tuple(dict.fromkeys((os.path.relpath(script.parent, root), *_paths_of(around, root)))),
        python=declaration.python,
        origin=f"{script.name} (PEP 723)",
    )
    if script.parent == root:
        needs = replace(needs, source_paths=tuple(dict.fromkeys((*_source_paths(root), *needs.source_paths))))
    return _reading(needs, around, lock if lock.is_file() else None, script)


def _pinned(root: Path, top: Path) -> str:
    """``.python-version``, here or above, as uv and pyenv read it."""
    for directory in (root, *root.parents):
        path = directory / ".python-version"
        if path.is_file():
            lines = [line.strip() for line in head_of(path).splitlines()]
            return next((line for line in lines if line and not line.startswith("#")), "")
        if directory == top:
            break
    return ""


def _source_paths(root: Path) -> tuple[str, ...]:
    return ("src", ".") if (root / "src").is_dir() else (".",)
