"""Everything that travels with a project: its own files, what its declarations name beside it, and what the files do not tell."""

from __future__ import annotations

import json
import logging
import os
import sys
import sysconfig
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from flamepy._package.listing import Listing
from flamepy._package.project import Located
from flamepy._package.selection import Walk, link_inside, listed
from flamepy._package.versions import module_text, recorded

if TYPE_CHECKING:
    from flame_host import Host
    from flame_host.api import ProjectNeeds

logger = logging.getLogger("flamepy.package")

_UNREAD = ("poetry.lock", "pdm.lock", "Pipfile.lock")
ABOUT = ".flame-package.json"


@dataclass(frozen=True)
class Shipment:
    """Attributes:
    base: the directory that names are relative to: the project's root, or what it has in common with its neighbours.
    files: names, sorted. about: what the package says of itself, empty for a project whose files say it all.
    places: directories that a worker imports from, absolute.
    """

    base: Path
    located: Located
    files: list[str]
    about: Mapping[str, object]
    places: tuple[Path, ...]
    needs: ProjectNeeds
    extra: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def root(self) -> Path:
        return self.located.root

    @cached_property
    def links(self) -> Mapping[str, str]:
        """The symbolic links among the files, with what they lead to."""
        found = {}
        for name in self.files:
            path = self.base / name
            if path.is_symlink():
                target = link_inside(self.base, path)
                if target is not None:
                    found[name] = target
        return found

    @cached_property
    def names(self) -> frozenset[str]:
        return frozenset(self.files)

    def carries(self, path: Path) -> bool:
        """Whether a file of this machine is in the package."""
        return path.is_relative_to(self.base) and str(path.relative_to(self.base)) in self.names


def assemble(host: Host, located: Located, excludes: Sequence[str], includes: Sequence[str], cellar: Path) -> Shipment:
    """Look the project over and list what travels."""
    root = located.root
    for name in _UNREAD:
        if (root / name).is_file() and not (root / "uv.lock").is_file() and not (root / "pylock.toml").is_file():
            logger.warning("%s is not read: versions are chosen anew (export a pylock.toml to keep them)", name)
    script = located.script if located.script is not None and located.script.is_relative_to(root) else None
    needs = host.project_needs(root, script)
    outside = [path for path in needs.travelling if not path.is_relative_to(root)]
    base = Path(os.path.commonpath([root, *(path.parent if path.is_file() else path for path in outside)]))
    files = set(_below(base, root, excludes, includes, cellar))
    for path in needs.travelling:
        if path.is_dir():
            if not path.is_relative_to(root):
                files.update(_below(base, path, excludes, (), cellar))
        elif path.is_file():
            files.add(str(path.relative_to(base)))
    for path in needs.version_files.values():
        if path.is_file() and path.is_relative_to(base):
            files.add(str(path.relative_to(base)))
    paths = _import_paths(root, base, needs)
    about = _about(located, base, script, paths, needs)
    extra = {ABOUT: json.dumps(about, sort_keys=True).encode()} if about else {}
    extra |= _version_modules(base, about.get("versions", {}), needs)
    places = tuple(dict.fromkeys([*(base / path for path in paths), *_declared_places(root, needs)]))
    return Shipment(base, located, sorted(files), about, places, needs, extra)


def _below(base: Path, directory: Path, excludes: Sequence[str], includes: Sequence[str], cellar: Path) -> list[str]:
    walk = Walk(directory, tuple(excludes), tuple(includes), never=cellar.parent)
    found = listed(walk, Listing(cellar, directory, [*excludes, "/", *includes]))
    prefix = os.path.relpath(directory, base)
    return found if prefix == "." else [f"{prefix}/{name}" for name in found]


def _import_paths(root: Path, base: Path, needs: ProjectNeeds) -> list[str]:
    """Where this program imports from, as far as it travels; the same places serve its tasks."""
    installed = {Path(sysconfig.get_path(kind)).resolve() for kind in ("purelib", "platlib")}
    found: dict[str, None] = {}
    for entry in sys.path:
        path = Path(entry or ".").resolve()
        travels = path.is_relative_to(root) or any(path.is_relative_to(place) for place in needs.running.values())
        if travels and path.is_dir() and path not in installed and "site-packages" not in path.parts:
            found[os.path.relpath(path, base)] = None
    return list(found)


def _declared_places(root: Path, needs: ProjectNeeds) -> list[Path]:
    return [Path(os.path.normpath(root / path)) for path in needs.requirements.source_paths]


def _version_modules(base: Path, versions: object, needs: ProjectNeeds) -> dict[str, bytes]:
    """What building would write, for a checkout that was never built."""
    found = {}
    for name, path in needs.version_files.items():
        if isinstance(versions, dict) and name in versions and not path.exists() and path.is_relative_to(base):
            found[str(path.relative_to(base))] = module_text(versions[name]).encode()
    return found


def _about(located: Located, base: Path, script: Path | None, paths: Sequence[str], needs: ProjectNeeds) -> dict[str, object]:
    """Only what reading the files alone would not give."""
    about: dict[str, object] = {}
    root = located.root
    if base != root:
        about["root"] = os.path.relpath(root, base)
    if script is not None and needs.is_script:
        about["script"] = os.path.relpath(script, base)
    here = Path.cwd().resolve()
    if here != root and here.is_relative_to(root):
        about["directory"] = os.path.relpath(here, base)
    declared = [os.path.relpath(place, base) for place in _declared_places(root, needs)]
    if paths and set(paths) - set(declared):
        about["paths"] = list(dict.fromkeys([*paths, *(path for path in declared if path not in paths)]))
    versions = recorded(dict(needs.unversioned))
    if versions:
        about["versions"] = versions
    return about
