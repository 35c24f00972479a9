"""One project's own declaration: its ``pyproject.toml``, and what of it can be known without running anything."""

from __future__ import annotations

import ast
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flame_host._packages.reading import head_of, is_below, read_toml, takes_long
from flame_host._packages.tables import at, strings
from flame_host.api import ConfigError

_NAME = r"(?i)[A-Z0-9](?:[A-Z0-9._-]{0,200}[A-Z0-9])?"
COMPILED_BACKENDS = ("maturin", "scikit_build_core", "mesonpy")


def canonical(name: str) -> str:
    """The one spelling of a distribution's name."""
    return re.sub(r"[-_.]+", "-", name).lower()


@dataclass(frozen=True)
class Declaration:
    """``pyproject.toml`` of a directory; an absent one is an empty table."""

    directory: Path
    table: Mapping[str, Any]

    @classmethod
    def of(cls, directory: Path) -> Declaration:
        path = directory / "pyproject.toml"
        return cls(directory, read_toml(path) if path.is_file() else {})

    @property
    def project(self) -> Mapping[str, Any] | None:
        return at(self.table, "project") if "project" in self.table else None

    @property
    def uv(self) -> Mapping[str, Any]:
        return at(self.table, "tool", "uv")

    @property
    def flame(self) -> Mapping[str, Any]:
        return at(self.table, "tool", "flame")

    @property
    def name(self) -> str:
        """It names directories of ours, too.

        Raises:
            ConfigError: it is no name of a distribution.
        """
        name = (self.project or {}).get("name", "")
        if name and (not isinstance(name, str) or not re.fullmatch(_NAME, name)):
            raise ConfigError(
                f"pyproject.toml [project] name is {name!r:.200}", hint="letters, digits, and between them hyphens, dots and underscores"
            )
        return canonical(name)

    @property
    def is_package(self) -> bool:
        """Whether ``uv run`` would install it, so that its metadata is there."""
        return bool(self.uv.get("package", "build-system" in self.table)) and self.project is not None and bool(self.name)

    @property
    def dynamic(self) -> set[str]:
        return set(strings((self.project or {}).get("dynamic", []), "[project] dynamic"))

    @property
    def is_compiled(self) -> bool:
        backend = str(at(self.table, "build-system").get("build-backend", ""))
        if backend.partition(".")[0] in COMPILED_BACKENDS:
            return True
        extensions = at(self.table, "tool", "setuptools").get("ext-modules")
        setup = self.directory / "setup.py"
        return bool(extensions) or (setup.is_file() and is_setup(setup))

    @property
    def is_static(self) -> bool:
        """Whether its code runs from where it stands, and its requirements can be read."""
        if self.project is None or not self.name or self.flame.get("build"):
            return False
        return not self.dynamic & {"dependencies", "optional-dependencies"} and not self.is_compiled

    @property
    def python(self) -> str:
        return str((self.project or {}).get("requires-python", ""))

    def dependencies(self, extras: Sequence[str] = (), groups: Sequence[str] = ()) -> list[str]:
        project = self.project or {}
        found = strings(project.get("dependencies", []), "[project] dependencies")
        for extra in extras:
            found += self._extra(project, extra)
        for group in groups:
            found += self._group(at(self.table, "dependency-groups"), group, ())
        return found

    @property
    def extras(self) -> tuple[str, ...]:
        """The chosen ones."""
        return tuple(strings(self.flame.get("extras", []), "[tool.flame] extras"))

    @property
    def groups(self) -> tuple[str, ...]:
        """The chosen ones; without a choice those that ``uv run`` takes."""
        if "groups" in self.flame:
            return tuple(strings(self.flame["groups"], "[tool.flame] groups"))
        there = at(self.table, "dependency-groups")
        default = self.uv.get("default-groups", ["dev"])
        if default == "all":
            return tuple(there)
        return tuple(group for group in strings(default, "[tool.uv] default-groups") if group in there)

    @cached_property
    def source_directories(self) -> tuple[str, ...]:
        """Where its packages stand, as its build backend says it; else ``src``, when there is one."""
        tool = at(self.table, "tool")
        found = [str(root) for name, root in at(tool, "setuptools", "package-dir").items() if not name]
        packages = at(tool, "setuptools").get("packages", {})
        if isinstance(packages, Mapping):
            found += strings(at(packages, "find").get("where", []), "[tool.setuptools.packages.find] where")
        wheel = at(tool, "hatch", "build", "targets", "wheel")
        found += [str(Path(package).parent) for package in strings(wheel.get("packages", []), "[tool.hatch.build.targets.wheel] packages")]
        poetry = at(tool, "poetry").get("packages", [])
        found += [str(item.get("from", ".")) for item in poetry if isinstance(item, Mapping)] if isinstance(poetry, list) else []
        for value in (at(tool, "pdm", "build").get("package-dir"), at(self.uv, "build-backend").get("module-root")):
            found += [str(value or ".")] if value is not None else []
        found = [path for path in dict.fromkeys(found) if (self.directory / path).is_dir()]
        return tuple(found) or (("src",) if (self.directory / "src").is_dir() else (".",))

    def version(self, recorded: Mapping[str, str]) -> str:
        """Written down, or in a file its build backend would read; else as it was recorded when it was packed; else empty."""
        project = self.project or {}
        if "version" in project:
            return str(project["version"])
        if self.name in recorded:
            return recorded[self.name]
        tool = at(self.table, "tool")
        hatch = at(tool, "hatch", "version")
        if "path" in hatch:
            if "pattern" in hatch:
                takes_long()
            pattern = str(hatch.get("pattern") or r'(?i)^(?:__version__|VERSION)(?:: str)? *= *([\'"])v?(?P<version>.+?)\1')
            return self._searched(str(hatch["path"]), pattern)
        setuptools = at(tool, "setuptools", "dynamic", "version")
        if "file" in setuptools:
            files = [setuptools["file"]] if isinstance(setuptools["file"], str) else setuptools["file"]
            return self._text(strings(files, "[tool.setuptools.dynamic.version] file")[0]).strip() if files else ""
        if "attr" in setuptools:
            return self._attribute(str(setuptools["attr"]))
        pdm = at(tool, "pdm", "version")
        if pdm.get("source") == "file":
            return self._searched(str(pdm.get("path", "")), r'(?m)^__version__\s*=\s*[\'"](?P<version>[^\'"]+)')
        return ""

    def poetry_paths(self) -> list[Path]:
        """What poetry takes from beside the project; it reads no other table for that."""
        poetry = self.table.get("tool", {}).get("poetry", {})
        tables = [poetry.get("dependencies", {}), *(group.get("dependencies", {}) for group in poetry.get("group", {}).values())]
        values = [value for table in tables for value in table.values()]
        items = [item for value in values for item in (value if isinstance(value, list) else [value])]
        return [Path(os.path.normpath(self.directory / item["path"])) for item in items if isinstance(item, Mapping) and "path" in item]

    @property
    def version_file(self) -> Path | None:
        """The module its build backend writes the version to, usually ignored by git and there after the first build."""
        tool = at(self.table, "tool")
        scm = at(tool, "setuptools_scm")
        name = scm.get("version_file") or scm.get("write_to") or at(tool, "hatch", "build", "hooks", "vcs").get("version-file")
        name = name or at(tool, "pdm", "version").get("write_to")
        return self.directory / str(name) if name else None

    def _text(self, name: str) -> str:
        try:
            return head_of(self.directory / name) if is_below(self.directory / name) else ""
        except (OSError, ValueError, RuntimeError):  # not there, or no path
            return ""

    def _searched(self, name: str, pattern: str) -> str:
        try:
            found = re.compile(pattern, re.MULTILINE).search(self._text(name))
            return found["version"] or "" if found else ""
        except (re.error, IndexError, OverflowError, RecursionError) as error:
            raise ConfigError(f"pyproject.toml: the pattern of the version, {pattern!r:.200}, is none: {error}") from error

    def _attribute(self, path: str) -> str:
        """A constant of a module, read and not run."""
        module, _, attribute = path.rpartition(".")
        for source in (*self.source_directories, "."):
            for end in (".py", "/__init__.py"):
                text = self._text(f"{source}/{module.replace('.', '/')}{end}")
                for node in _statements(text):
                    targets = node.targets if isinstance(node, ast.Assign) else []
                    names = [target.id for target in targets if isinstance(target, ast.Name)]
                    if attribute in names and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                        return str(node.value.value)
        return ""

    @staticmethod
    def _extra(project: Mapping[str, Any], extra: str) -> list[str]:
        extras = at(project, "optional-dependencies")
        if extra not in extras:
            raise ConfigError(
                f"pyproject.toml [tool.flame] extras: no extra {extra!r} in [project.optional-dependencies]",
                hint=f"there are: {', '.join(extras) or 'none'}",
            )
        return strings(extras[extra], f"[project.optional-dependencies] {extra}")

    def _group(self, groups: Mapping[str, Any], name: str, seen: Sequence[str]) -> list[str]:
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
                found += self._group(groups, item["include-group"], (*seen, name))
            else:
                raise ConfigError(f"pyproject.toml [dependency-groups] {name}: cannot read {item!r:.200}")
        return found


def _statements(text: str) -> list[ast.stmt]:
    """Of a module; none of what does not parse."""
    try:
        return ast.parse(text).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def is_setup(path: Path) -> bool:
    text = head_of(path)
    return "setup(" in text if path.suffix == ".py" else "[metadata]" in text or "[options]" in text


def is_versioned_elsewhere(directory: Path) -> bool:
    """Whether a project that is built takes its version from version control."""
    for name in ("pyproject.toml", "setup.py", "setup.cfg"):
        path = directory / name
        if path.is_file() and re.search(r"scm|hatch-vcs|versioneer|dunamai|pbr", head_of(path)):
            return True
    return False
