"""What a project takes from beside it: workspace members and path dependencies, at any depth.

They are the user's own: taken from where they are declared, and never looked up on an index by their name. One that is editable and
needs no building runs from its directory, as it does in the checkout; the others are built and installed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from flame_host._packages.declared import Declaration, canonical
from flame_host._packages.reading import takes_long
from flame_host._packages.tables import at, strings
from flame_host.api import ConfigError

_REQUIREMENT = r"(?s)\s*(?P<name>[A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*(?P<extras>\[[^\]]*\])?\s*(?P<rest>.*)"
_NOT_FOR_INSTALLING = ("sources", "workspace", "dev-dependencies", "default-groups", "package", "managed", "cache-keys", "build-backend")


@dataclass
class Neighbourhood:
    """Attributes:
    dependencies: to be installed; those of projects that run from their directories are among them.
    running: name → project that runs from its directory. installed: name → directory or archive to be installed from.
    sources: name → source elsewhere (git, url, index), as ``[tool.uv.sources]`` has it.
    settings: the rest of ``[tool.uv]``. workspace: root of the uv workspace. touched: all that was looked at.
    """

    dependencies: list[str] = field(default_factory=list)
    running: dict[str, Declaration] = field(default_factory=dict)
    installed: dict[str, Path] = field(default_factory=dict)
    sources: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    workspace: Declaration | None = None
    touched: list[Path] = field(default_factory=list)


def look_around(project: Declaration, extras: Sequence[str], groups: Sequence[str], top: Path) -> Neighbourhood:
    """Follow the declarations, as far as ``top``.

    Raises:
        ConfigError: a declared project is not there, or the workspace has no member of that name.
    """
    found = Neighbourhood(workspace=_workspace_of(project, top))
    settings_of = found.workspace or project
    found.settings = _settings(settings_of)
    waiting: list[tuple[Declaration, list[str], bool]] = [(project, project.dependencies(extras, groups), False)]
    seen = {project.directory}
    while waiting:
        declaration, requirements, below_installed = waiting.pop()
        sources = _sources(declaration, top)
        if "dependencies" in declaration.dynamic:  # which of them it wants is known when it is built, and they have to be there by then
            requirements = [*requirements, *sources]
        for requirement in requirements:
            name, its_extras, target = split_requirement(requirement)
            local = _local(declaration, name, sources.get(name), target, top)
            if local is None:
                if name in sources:
                    found.sources[name] = _as_written(sources[name])
                if not below_installed:
                    found.dependencies.append(requirement)
                continue
            path, editable, source = local
            if name == project.name or path == project.directory:
                if its_extras:
                    waiting.append((project, project.dependencies(its_extras)[len(project.dependencies()) :], below_installed))
                continue
            found.touched.append(path)
            neighbour = Declaration.of(path) if path.is_dir() else Declaration(path, {})
            is_virtual = not source.get("package", neighbour.uv.get("package", True))
            runs = neighbour.is_static and not below_installed and (editable or is_virtual)
            if runs and name not in found.installed:
                if not is_virtual:
                    found.running[name] = neighbour
            else:
                found.installed[name] = path
                if not below_installed:
                    found.dependencies.append(requirement)
            if (path not in seen or its_extras) and path.is_dir():
                seen.add(path)
                wanted = neighbour.dependencies([extra for extra in its_extras if extra in _extras(neighbour)])
                waiting.append((neighbour, wanted, not runs))
    for name in found.installed:  # wanted both ways: what needs building decides, for its builder will look for it
        found.running.pop(name, None)
    return found


def split_requirement(text: str) -> tuple[str, list[str], str]:
    """Name, extras, and what stands behind ``@``."""
    match = re.match(_REQUIREMENT, text)
    if match is None:
        return "", [], ""
    extras = [canonical(extra.strip()) for extra in (match["extras"] or "[]")[1:-1].split(",") if extra.strip()]
    rest = match["rest"].split(" ;")[0].strip()
    return canonical(match["name"]), extras, rest[1:].strip() if rest[:1] == "@" else ""


def path_of_url(target: str, base: Path) -> Path | None:
    """The path a direct reference means; None when it is elsewhere."""
    target = target.partition("#")[0].partition("?")[0]
    for spelling in ("${PROJECT_ROOT}", "{root:uri}", "{root}"):
        target = target.replace(f"file:///{spelling}", str(base)).replace(f"file://{spelling}", str(base)).replace(spelling, str(base))
    if target.startswith("file:"):
        target = unquote(target.removeprefix("file:"))
        target = "/" + target.lstrip("/") if target.startswith("//") else target
    elif "://" in target or target.partition("+")[0] in ("git", "hg", "svn", "bzr"):
        return None
    return Path(os.path.normpath(base / target))


def _local(declaration: Declaration, name: str, source: Any, target: str, top: Path) -> tuple[Path, bool, Mapping[str, Any]] | None:
    """Where a requirement is to be taken from, whether as editable, and how that was said; None when it is not beside us."""
    if target:
        path = path_of_url(target, declaration.directory)
        return None if path is None or not path.exists() else (path, False, {})
    for item in source if isinstance(source, list) else [source] if source is not None else []:
        if item.get("workspace"):
            return (*_member(declaration, name, item, top), item)
        if "path" in item:
            base = item.get("#base", declaration.directory)
            path = Path(os.path.normpath(base / str(item["path"])))
            if not path.exists():
                raise ConfigError(
                    f"pyproject.toml [tool.uv.sources] {name}: {item['path']} is not there (looked at {path})",
                    hint="put it there, or mend the path; nothing of that name is looked up on an index in its place",
                )
            return path, bool(item.get("editable", False)), item
    return None


def _member(declaration: Declaration, name: str, item: Mapping[str, Any], top: Path) -> tuple[Path, bool]:
    workspace = _workspace_of(declaration, top)
    members = dict(_members(workspace)) if workspace is not None else {}
    if name not in members:
        raise ConfigError(
            f"pyproject.toml [tool.uv.sources] {name}: the workspace has no member of that name",
            hint=f"it has: {', '.join(sorted(members)) or 'none, for there is no [tool.uv.workspace] above'}",
        )
    return members[name], bool(item.get("editable", True))


def _workspace_of(project: Declaration, top: Path) -> Declaration | None:
    for directory in (project.directory, *project.directory.parents):
        if (directory / "pyproject.toml").is_file():
            candidate = project if directory == project.directory else Declaration.of(directory)
            if "workspace" in candidate.uv:
                inside = directory == project.directory or project.directory in dict(_members(candidate)).values()
                return candidate if inside else None
        if directory == top:
            break
    return None


def _members(workspace: Declaration) -> Iterator[tuple[str, Path]]:
    table = at(workspace.uv, "workspace")
    left_out = {path for pattern in _patterns(table, "exclude") for path in workspace.directory.glob(pattern)}
    if workspace.name:
        yield workspace.name, workspace.directory
    for pattern in _patterns(table, "members"):
        for path in sorted(workspace.directory.glob(pattern)):
            if path not in left_out and (path / "pyproject.toml").is_file():
                yield Declaration.of(path).name, path


def _patterns(table: Mapping[str, Any], name: str) -> list[str]:
    """Below the workspace, as uv has it: what leads elsewhere would have us walk through somebody else's files."""
    patterns = strings(table.get(name, []), f"[tool.uv.workspace] {name}")
    for pattern in patterns:
        if pattern.count("**") > 1:
            takes_long()
        if not pattern or pattern.startswith("/") or ".." in Path(pattern).parts or "\0" in pattern:
            raise ConfigError(f"pyproject.toml [tool.uv.workspace] {name}: {pattern!r:.200} does not lie below the workspace")
    return patterns


def workspace_files(workspace: Declaration) -> list[Path]:
    """What uv looks at to see whether its lock is up to date: the declarations of all members, and the lock."""
    files = [path / "pyproject.toml" for _, path in _members(workspace)]
    return [
        path for path in dict.fromkeys([workspace.directory / "pyproject.toml", workspace.directory / "uv.lock", *files]) if path.is_file()
    ]


def _sources(declaration: Declaration, top: Path) -> dict[str, Any]:
    """Its own, over those of its workspace."""
    found: dict[str, Any] = {}
    workspace = _workspace_of(declaration, top)
    for holder in (workspace, declaration):
        if holder is None:
            continue
        for name, source in at(holder.uv, "sources").items():
            if not all(isinstance(item, Mapping) for item in (source if isinstance(source, list) else [source])):
                raise ConfigError(f"pyproject.toml [tool.uv.sources] {name} is {source!r:.200}", hint="a table is wanted")
            items = [{**item, "#base": holder.directory} for item in (source if isinstance(source, list) else [source])]
            found[canonical(name)] = items if isinstance(source, list) else items[0]
    return found


def _as_written(source: Any) -> Any:
    items = [{key: value for key, value in item.items() if key != "#base"} for item in (source if isinstance(source, list) else [source])]
    return items if isinstance(source, list) else items[0]


def _settings(declaration: Declaration) -> dict[str, Any]:
    """Those that decide what gets installed, with paths made absolute."""
    kept = {key: value for key, value in declaration.uv.items() if key not in _NOT_FOR_INSTALLING}

    def absolute(value: Any) -> Any:
        text = str(value)
        return text if "://" in text or text.startswith("file:") else str(Path(os.path.normpath(declaration.directory / text)))

    for table in (kept, kept.get("pip", {})):
        if "find-links" in table:
            table["find-links"] = [absolute(value) for value in table["find-links"]]
        if "index" in table:
            table["index"] = [{**index, "url": absolute(index.get("url", ""))} for index in table["index"]]
        for name in ("index-url", "extra-index-url"):
            if name in table:
                value = table[name]
                table[name] = [absolute(item) for item in value] if isinstance(value, list) else absolute(value)
    return kept


def _extras(declaration: Declaration) -> Mapping[str, Any]:
    return at(declaration.project or {}, "optional-dependencies")
