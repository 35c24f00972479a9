"""The Python files of a project, by the names they are imported by."""

from __future__ import annotations

import ast
import tokenize
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flamepy._config.settings import ToolTable
from flamepy._package.selection import Decision, explain
from flamepy.build.errors import Problem

NEVER = (".flash/", ".runpod/", ".tetra/", ".build/", "/flash_manifest.json")
"""Left out of every build, besides what every package leaves out: what builds and other deployers have made."""


@dataclass(frozen=True)
class SourceModule:
    """Attributes:
    name: dotted, as it is imported; empty when no import statement or call can name it.
    package: what relative imports start from.
    has_globals: some function may bind names of the module.
    """

    name: str
    package: str
    file: str
    tree: ast.Module
    has_globals: bool = True


def project_files(root: Path, excludes: Sequence[str] = ()) -> list[str]:
    """What goes into the package, relative to the project and sorted."""
    return sorted(decision.path for decision in decisions(root, excludes) if decision.included)


def decisions(root: Path, excludes: Sequence[str] = ()) -> list[Decision]:
    """What is in and what is out, by the same rules as for a Runner: ignore files, ``[tool.flame]``, no secrets."""
    tool = ToolTable.of(root).values
    return explain(root, (*NEVER, *_flashignore(root), *tool.get("exclude", ()), *excludes), tool.get("include", ()))


def _flashignore(root: Path) -> list[str]:
    path = root / ".flashignore"
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    return [".flashignore", *(line for line in lines if line.strip() and not line.startswith("#"))]


def source_roots(root: Path) -> tuple[str, ...]:
    """Directories that imports start from, relative to the project, first come first served."""
    source = root / "src"
    return ("src", ".") if source.is_dir() and not (source / "__init__.py").exists() else (".",)


def read_modules(root: Path, files: Sequence[str]) -> tuple[list[SourceModule], list[Problem]]:
    """Parse every Python file; what cannot be read is a problem, for it may hold what is looked for."""
    modules, problems = [], []
    roots = source_roots(root)
    for file in files:
        if not file.endswith(".py"):
            continue
        try:
            with tokenize.open(root / file) as stream:  # heeds the file's own declaration of its encoding
                text = stream.read()
            tree = ast.parse(text, file)
        except SyntaxError as error:
            problems.append(Problem(file, error.lineno or 0, f"not valid Python: {error.msg}"))
        except (OSError, UnicodeDecodeError, ValueError) as error:
            problems.append(Problem(file, 0, f"cannot be read: {error}"))
        else:
            name, package = module_name(file, roots)
            modules.append(SourceModule(name, package, file, tree, "global" in text))
    return modules, problems


def module_name(file: str, roots: Sequence[str]) -> tuple[str, str]:
    """Name and package of a file; names that are no identifiers are fine, a dot inside a part is not."""
    inside = next((file.removeprefix(f"{root}/") for root in roots if root != "." and file.startswith(f"{root}/")), file)
    parts = inside.removesuffix(".py").split("/")
    is_package = parts[-1] == "__init__"
    if is_package:
        parts.pop()
    if not parts or any("." in part or not part for part in parts):
        return "", ""
    return ".".join(parts), ".".join(parts if is_package else parts[:-1])
