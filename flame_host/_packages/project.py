"""What a project needs before its code can run, read from its files. Nothing of the project is executed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flame_host._packages.reading import check_requirements, head_of, parse_toml, script_block, text_of
from flame_host.api import ConfigError, Requirements

_PROJECT_FILES = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "PKG-INFO")
_COMPILED_BACKENDS = ("maturin", "scikit_build_core", "mesonpy")


@dataclass(frozen=True)
class Project:
    """A project in an unpacked tree.

    Attributes:
        root: its directory, relative to the tree (``"."``, or the only directory at the top).
        requirements: with paths relative to that root.
        digest: of the contents of the requirements files.
    """

    root: str
    requirements: Requirements
    digest: str = ""

    def to_facts(self) -> dict[str, Any]:
        facts = asdict(self.requirements)
        facts["files"] = [str(path) for path in self.requirements.files]
        facts["build"] = str(self.requirements.build) if self.requirements.build else None
        return {"root": self.root, "digest": self.digest, "requirements": facts}

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Project:
        kept = dict(facts["requirements"])
        for name in ("dependencies", "source_paths"):
            kept[name] = tuple(kept[name])
        kept["files"] = tuple(Path(path) for path in kept["files"])
        kept["build"] = Path(kept["build"]) if kept["build"] else None
        return cls(facts["root"], Requirements(**kept), facts["digest"])


def read_project(tree: Path) -> Project:
    """Find the project in a tree and read its requirements.

    Raises:
        ConfigError: a file cannot be parsed or contradicts itself; names the file and, where it can, the line.
    """
    root = _project_root(tree)
    requirements = _read(root)
    digest = hashlib.sha256()
    for path in check_requirements(tree, [root / path for path in requirements.files]):
        digest.update(path.read_bytes())
    return Project(str(root.relative_to(tree)), requirements, digest.hexdigest() if requirements.files else "")


def _project_root(tree: Path) -> Path:
    """The tree, or the one directory that is all of it: ``tar -czf app.tar.gz app/``."""
    entries = list(tree.iterdir())
    if len(entries) == 1 and entries[0].is_dir() and any((entries[0] / name).exists() for name in _PROJECT_FILES):
        return entries[0]
    return tree


def _read(root: Path) -> Requirements:
    wheels = sorted(root.glob("*.whl"))
    if wheels:
        return Requirements(build=Path(wheels[0].name), source_paths=(), origin=wheels[0].name)
    if (root / "PKG-INFO").is_file():
        return Requirements(build=Path("."), source_paths=(), origin="PKG-INFO (a source distribution)")
    if (root / "pyproject.toml").is_file():
        found = _from_pyproject(root)
        if found is not None:
            return found
    for name in ("setup.py", "setup.cfg"):
        if (root / name).is_file() and _is_setup(root / name):
            return Requirements(build=Path("."), source_paths=(), origin=name)
    files = tuple(Path(path.name) for path in sorted(root.glob("requirements*.txt")) if path.name == "requirements.txt")
    if files:
        return Requirements(files=files, source_paths=_source_paths(root), origin="requirements.txt")
    script = _from_script(root)
    return script or Requirements(source_paths=_source_paths(root), origin="no project file")


def _is_setup(path: Path) -> bool:
    text = head_of(path)
    return "setup(" in text if path.suffix == ".py" else "[metadata]" in text or "[options]" in text


def _from_pyproject(root: Path) -> Requirements | None:
    """None when the file only configures tools."""
    table = read_toml(root / "pyproject.toml")
    project = table.get("project")
    if project is not None:
        project = _table(project, "[project]")
    tool = _table(_table(table.get("tool", {}), "[tool]").get("flame", {}), "[tool.flame]")
    if project is None:
        if "build-system" in table and ((root / "setup.py").is_file() or "poetry" in _table(table.get("tool", {}), "[tool]")):
            return Requirements(build=Path("."), source_paths=(), origin="pyproject.toml [build-system]")
        return None
    dynamic = set(_strings(project.get("dynamic", []), "[project] dynamic"))
    python = str(project.get("requires-python", ""))
    if tool.get("build") or dynamic & {"dependencies", "optional-dependencies"} or _is_compiled(root, table):
        return Requirements(build=Path("."), source_paths=(), python=python, origin="pyproject.toml (has to be built)")
    dependencies = _strings(project.get("dependencies", []), "[project] dependencies")
    for extra in _strings(tool.get("extras", []), "[tool.flame] extras"):
        dependencies += _extra(project, extra)
    for group in _strings(tool.get("groups", []), "[tool.flame] groups"):
        dependencies += _group(_table(table.get("dependency-groups", {}), "[dependency-groups]"), group, ())
    return Requirements(
        dependencies=tuple(dependencies), source_paths=_source_paths(root), python=python, origin="pyproject.toml [project]"
    )


def _is_compiled(root: Path, table: Mapping[str, Any]) -> bool:
    backend = str(_table(table.get("build-system", {}), "[build-system]").get("build-backend", ""))
    if backend.partition(".")[0] in _COMPILED_BACKENDS:
        return True
    setuptools = _table(_table(table.get("tool", {}), "[tool]").get("setuptools", {}), "[tool.setuptools]")
    extensions = setuptools.get("ext-modules")
    setup = root / "setup.py"
    return bool(extensions) or (setup.is_file() and _is_setup(setup))


def _extra(project: Mapping[str, Any], extra: str) -> list[str]:
    extras = _table(project.get("optional-dependencies", {}), "[project.optional-dependencies]")
    if extra not in extras:
        raise ConfigError(
            f"pyproject.toml [tool.flame] extras: no extra {extra!r} in [project.optional-dependencies]",
            hint=f"there are: {', '.join(extras) or 'none'}",
        )
    return _strings(extras[extra], f"[project.optional-dependencies] {extra}")


def _group(groups: Mapping[str, Any], name: str, seen: Sequence[str]) -> list[str]:
    if name not in groups:
        raise ConfigError(
            f"pyproject.toml [tool.flame] groups: no group {name!r} in [dependency-groups]",
            hint=f"there are: {', '.join(groups) or 'none'}",
        )
    if name in seen:
        raise ConfigError(f"pyproject.toml [dependency-groups]: {' → '.join((*seen, name))} includes itself")
    found: list[str] = []
    items = groups[name]
    if not isinstance(items, list):
        raise ConfigError(f"pyproject.toml [dependency-groups] {name} is {items!r:.200}", hint="a list is wanted")
    for item in items:
        if isinstance(item, str):
            found.append(item)
        elif isinstance(item, dict) and set(item) == {"include-group"} and isinstance(item["include-group"], str):
            found += _group(groups, item["include-group"], (*seen, name))
        else:
            raise ConfigError(f"pyproject.toml [dependency-groups] {name}: cannot read {item!r:.200}")
    return found


def _from_script(root: Path) -> Requirements | None:
    """A single file that carries its requirements in a comment (PEP 723)."""
    scripts = [path for path in sorted(root.glob("*.py")) if "# /// script" in head_of(path)]
    if len(scripts) != 1:
        return None
    text = script_block(head_of(scripts[0]), scripts[0].name)
    if text is None:
        return None
    table = parse_toml(text, scripts[0].name)
    return Requirements(
        dependencies=tuple(_strings(table.get("dependencies", []), f"{scripts[0].name} dependencies")),
        source_paths=_source_paths(root),
        python=str(table.get("requires-python", "")),
        origin=f"{scripts[0].name} (PEP 723)",
    )


def _source_paths(root: Path) -> tuple[str, ...]:
    return ("src", ".") if (root / "src").is_dir() else (".",)


def _table(value: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"pyproject.toml {where} is {value!r:.200}", hint="a table is wanted")
    return value


def _strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"pyproject.toml {where} is {value!r:.200}", hint="a list of strings is wanted")
    return list(value)


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table; a broken one is `ConfigError` with the file's name and the line."""
    return parse_toml(text_of(path), path.name)
