"""Imports inside the bodies of endpoints: they run with the first job, and whether that can work is asked now."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from flamepy.build.errors import Problem
from flamepy.build.modules import SourceModule

__all__ = ["missing_imports", "provides"]

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def missing_imports(
    modules: Iterable[SourceModule], endpoints: Iterable[tuple[str, int]], build: Path, roots: Iterable[str], present: frozenset[str]
) -> list[Problem]:
    """Those that nothing in the archive provides.

    A module that changes ``sys.path`` finds more where it runs than can be seen here, and is left out.

    Args:
        endpoints: file and line of their definitions. build: the archive's directory, complete.
        present: modules that the workers' image has.
    """
    wanted = set(endpoints)
    places = [build / root for root in roots] + [build]
    problems = []
    for module in modules:
        lines = {line for file, line in wanted if file == module.file}
        if not lines or _extends_path(module.tree):
            continue
        for name, line in _needed(module.tree, lines):
            if not _is_there(name, places, present):
                message = f"imports {name}, which is neither in the project nor installed by its dependencies; name what provides it there"
                problems.append(Problem(module.file, line, message))
    return problems


def _extends_path(tree: ast.Module) -> bool:
    changed = ("sys.path.insert", "sys.path.append", "sys.path.extend")
    return any(isinstance(node, ast.Call) and ast.unparse(node.func) in changed for node in ast.walk(tree))


def _needed(tree: ast.Module, lines: set[int]) -> Iterator[tuple[str, int]]:
    """Modules that the definitions at these lines import, and the functions of their module that they use; with lines."""
    functions = {node.name: node for node in tree.body if isinstance(node, _FUNCTIONS)}
    waiting = [node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS) and node.lineno in lines]
    met: set[ast.AST] = set()
    while waiting:
        function = waiting.pop()
        if function in met:
            continue
        met.add(function)
        yield from _imports(function.body)
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)}
        waiting += [functions[name] for name in used & functions.keys()]


def _imports(body: Iterable[ast.AST]) -> Iterator[tuple[str, int]]:
    """Those that have to succeed: not in a ``try``, which has an answer to their failure."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield str(node.module), node.lineno
        elif isinstance(node, ast.Try):
            yield from _imports([*node.orelse, *node.finalbody])
        else:
            yield from _imports(ast.iter_child_nodes(node))


def _is_there(name: str, places: Iterable[Path], present: frozenset[str]) -> bool:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names or top in present:
        return True
    return any(provides(place, top) for place in places)


def provides(place: Path, name: str) -> bool:
    """Whether a module of this name would be found in the directory."""
    return (place / name).is_dir() or (place / f"{name}.py").is_file() or any(place.glob(f"{name}.*so")) or any(place.glob(f"{name}.*pyd"))
