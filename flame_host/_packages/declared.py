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

from flame_host._packages.tables import read_toml, strings
from flame_host.api import ConfigError

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
        found = self.table.get("project")
        return found if isinstance(found, Mapping) else None

    @property
    def uv(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.table.get("tool", {}).get("uv", {})
        return found

    @property
    def flame(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = self.table.get("tool", {}).get("flame", {})
        return found

    @property
    def name(self) -> str:
        return canonical(str((self.project or {}).get("name", "")))

    @property
    def is_package(self) -> bool:
        """Whether ``uv run`` would install it, so that its metadata is there."""
        return bool(self.uv.get("package", "build-system" in self.table)) and self.project is not None

    @property
    def dynamic(self) -> set[str]:
        return set((self.project or {}).get("dynamic", ()))

    @property
    def is_compiled(self) -> bool:
        backend = str(self.table.get("build-system", {}).get("build-backend", ""))
        if backend.partition(".")[0] in COMPILED_BACKENDS:
            return True
        extensions = self.table.get("tool", {}).get("setuptools", {}).get("ext-modules")
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
            found += self._group(self.table.get("dependency-groups", {}), group, ())
        return found

    @property
    def groups(self) -> tuple[str, ...]:
        """The chosen ones; without a choice those that ``uv run`` takes."""
        if "groups" in self.flame:
            return tuple(self.flame["groups"])
        there = self.table.get("dependency-groups", {})
        default = self.uv.get("default-groups", ["dev"])
        return tuple(there) if default == "all" else tuple(group for group in default if group in there)

    @cached_property
    def source_directories(self) -> tuple[str, ...]:
        """Where its packages stand, as its build backend says it; else ``src``, when there is one."""
        tool = self.table.get("tool", {})
        setuptools = tool.get("setuptools", {})
        packages = setuptools.get("packages", {})
        found = [str(root) for name, root in setuptools.get("package-dir", {}).items() if not name]
        found += packages.get("find", {}).get("where", []) if isinstance(packages, Mapping) else []
        wheel = tool.get("hatch", {}).get("build", {}).get("targets", {}).get("wheel", {})
        found += [str(Path(package).parent) for package in wheel.get("packages", ())]
        found += [str(item.get("from", ".")) for item in tool.get("poetry", {}).get("packages", ()) if isinstance(item, Mapping)]
        for value in (tool.get("pdm", {}).get("build", {}).get("package-dir"), self.uv.get("build-backend", {}).get("module-root")):
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
        tool = self.table.get("tool", {})
        hatch = tool.get("hatch", {}).get("version", {})
        if "path" in hatch:
            pattern = str(hatch.get("pattern") or r'(?i)^(?:__version__|VERSION)(?:: str)? *= *([\'"])v?(?P<version>.+?)\1')
            return self._searched(str(hatch["path"]), pattern)
        setuptools = tool.get("setuptools", {}).get("dynamic", {}).get("version", {})
        if "file" in setuptools:
            files = setuptools["file"]
            return self._text(files if isinstance(files, str) else files[0]).strip()
        if "attr" in setuptools:
            return self._attribute(str(setuptools["attr"]))
        pdm = tool.get("pdm", {}).get("version", {})
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
        tool = self.table.get("tool", {})
        scm = tool.get("setuptools_scm", {})
        hook = tool.get("hatch", {}).get("build", {}).get("hooks", {}).get("vcs", {})
        name = scm.get("version_file") or scm.get("write_to") or hook.get("version-file")
        name = name or tool.get("pdm", {}).get("version", {}).get("write_to")
        return self.directory / str(name) if name else None

    def _text(self, name: str) -> str:
        try:
            return (self.directory / name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            return ""

    def _searched(self, name: str, pattern: str) -> str:
        found = re.compile(pattern, re.MULTILINE).search(self._text(name))
        return found["version"] if found else ""

    def _attribute(self, path: str) -> str:
        """A constant of a module, read and not run."""
        module, _, attribute = path.rpartition(".")
        for source in (*self.source_directories, "."):
            for end in (".py", "/__init__.py"):
                text = self._text(f"{source}/{module.replace('.', '/')}{end}")
                for node in ast.parse(text).body if text else ():
                    names = [ast.unparse(target) for target in node.targets] if isinstance(node, ast.Assign) else []
                    if attribute in names and isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant):
                        return str(node.value.value)
        return ""

    @staticmethod
    def _extra(project: Mapping[str, Any], extra: str) -> list[str]:
        extras = project.get("optional-dependencies", {})
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
        for item in groups[name]:
            if isinstance(item, str):
                found.append(item)
            elif isinstance(item, dict) and set(item) == {"include-group"}:
                found += self._group(groups, item["include-group"], (*seen, name))
            else:
                raise ConfigError(f"pyproject.toml [dependency-groups] {name}: cannot read {item!r}")
        return found


def is_setup(path: Path) -> bool:
    text = path.read_text(encoding="utf-8", errors="replace")
    return "setup(" in text if path.suffix == ".py" else "[metadata]" in text or "[options]" in text


def is_versioned_elsewhere(directory: Path) -> bool:
    """Whether a project that is built takes its version from version control."""
    for name in ("pyproject.toml", "setup.py", "setup.cfg"):
        path = directory / name
        if path.is_file() and re.search(r"scm|hatch-vcs|versioneer|dunamai|pbr", path.read_text(encoding="utf-8", errors="replace")):
            return True
    return False
