"""Distribution metadata for projects that run from their directories, so that ``importlib.metadata`` finds what it finds in the checkout.

Written from their declarations, as an editable installation would: name, version, requirements, entry points. Nothing is built.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flame_host._packages.declared import Declaration, canonical
from flame_host._packages.seals import PLACE
from flame_host._packages.tables import at, strings


def write_metadata(tree: Path, here: Mapping[str, Declaration], recorded: Mapping[str, str]) -> bool:
    """One ``dist-info`` for each project whose version is known; says whether there is any."""
    place = tree / PLACE
    if place.is_symlink() or place.is_file():  # the name is ours, whatever a package has there
        place.unlink()
    elif place.is_dir():
        shutil.rmtree(place)
    versions = {name: _normalised(declaration.version(recorded)) for name, declaration in here.items()}
    written = False
    for name, version in versions.items():
        declaration = here[name]
        if not version:
            continue
        info = place / f"{canonical(declaration.name).replace('-', '_')}-{version}.dist-info"
        info.mkdir(parents=True, exist_ok=True)
        project = declaration.project or {}
        (info / "METADATA").write_text("\n".join(_headers(project, version)) + "\n", encoding="utf-8")
        entry_points = "\n".join(_entry_points(project))
        if entry_points:
            (info / "entry_points.txt").write_text(entry_points + "\n", encoding="utf-8")
        (info / "INSTALLER").write_text("flame-host\n")
        url = {"url": declaration.directory.as_uri(), "dir_info": {"editable": True}}
        (info / "direct_url.json").write_text(json.dumps(url))
        files = [path.name for path in info.iterdir()]
        (info / "RECORD").write_text("".join(f"{info.name}/{name},,\n" for name in sorted([*files, "RECORD"])))
        written = True
    return written


def _normalised(version: str) -> str:
    from packaging.version import InvalidVersion, Version

    try:
        return str(Version(version)) if version else ""
    except (InvalidVersion, ValueError):  # the second: a number longer than Python takes
        return ""


def _headers(project: Mapping[str, Any], version: str) -> Iterator[str]:
    yield "Metadata-Version: 2.3"
    yield f"Name: {project['name']}"
    yield f"Version: {version}"
    if project.get("description"):
        yield f"Summary: {' '.join(str(project['description']).split())}"
    if project.get("requires-python"):
        yield f"Requires-Python: {project['requires-python']}"
    for requirement in strings(project.get("dependencies", []), "[project] dependencies"):
        yield f"Requires-Dist: {requirement}"
    for extra, requirements in at({"project": project}, "project", "optional-dependencies").items():
        yield f"Provides-Extra: {extra}"
        for requirement in strings(requirements, f"[project.optional-dependencies] {extra}"):
            wanted, _, marker = str(requirement).partition(";")
            condition = f"({marker.strip()}) and extra == '{extra}'" if marker.strip() else f"extra == '{extra}'"
            yield f"Requires-Dist: {wanted.strip()} ; {condition}"


def _entry_points(project: Mapping[str, Any]) -> Iterator[str]:
    table = {"project": project}
    groups = {
        "console_scripts": at(table, "project", "scripts"),
        "gui_scripts": at(table, "project", "gui-scripts"),
        **{group: at(table, "project", "entry-points", group) for group in at(table, "project", "entry-points")},
    }
    for group, entries in groups.items():
        if entries:
            yield f"[{group}]"
            yield from (f"{name} = {target}" for name, target in entries.items())
            yield ""
