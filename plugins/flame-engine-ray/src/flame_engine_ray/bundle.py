"""What travels to the nodes: the host, the plugins, and what those need, as one zip archive.

Neither Ray nor the installers' own tools are in it: a node has Ray, and says itself what it can install with. Nor is what only the
commands need.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.util
import io
import json
import os
import zipfile
from collections.abc import Collection, Iterable, Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path
from typing import NamedTuple

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from flame_host.api import Capabilities, Plan

_ALWAYS = ("flame-host", "flame-host-sdk", "flame-engine-ray")
_STAY = frozenset({"ray", "uv", "pip", "setuptools", "typer", "rich"})
_UNNEEDED = ("tests", "test", "__pycache__")


class Bundle(NamedTuple):
    """Attributes:
    digest: SHA-256 of names and contents. content: the archive.
    """

    digest: str
    content: bytes


def providers_of(plan: Plan, offered: Capabilities) -> frozenset[str]:
    """The distributions of all formats, installers and caches; of stores, which may bring much, only the one that was agreed on."""
    wanted = {"stores": {plan.store}}
    return frozenset(
        one.distribution
        for family in ("stores", "archivers", "installers", "serializers", "caches")
        for one in offered.of(family)
        if one.distribution and (family not in wanted or one.name in wanted[family])
    )


@functools.lru_cache(maxsize=8)
def bundle(distributions: frozenset[str]) -> Bundle:
    """One of this process; what changes on disk afterwards does not count, as for everything that was imported."""
    files = dict(sorted(_files(distributions)))
    hasher = hashlib.sha256()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_STORED) as archive:
        for name, path in files.items():
            content = path.read_bytes()
            hasher.update(f"{name}\0{len(content)}\0".encode())
            hasher.update(content)
            archive.writestr(zipfile.ZipInfo(name), content)
    return Bundle(hasher.hexdigest(), out.getvalue())


def _files(distributions: frozenset[str]) -> Iterator[tuple[str, Path]]:
    for found in closure([*_ALWAYS, *distributions]).values():
        if _is_editable(found):
            for module in _modules_of(found):
                yield from _module_files(module)
        for path in found.files or ():
            name = path.as_posix()
            where = Path(str(path.locate()))
            if not name.startswith("..") and not _is_unneeded(name) and where.is_file():
                yield name, where


def _is_unneeded(name: str) -> bool:
    return name.endswith((".pyc", ".pth", "direct_url.json")) or any(part in _UNNEEDED for part in name.split("/")[:-1])


def closure(names: Iterable[str], *, stay: Collection[str] = _STAY) -> dict[str, Distribution]:
    """These distributions and all that they require, by name.

    Args:
        stay: left out, with what only they require.
    """
    waiting = list(names)
    found: dict[str, Distribution] = {}
    while waiting:
        name = canonicalize_name(waiting.pop())
        if name in found or name in stay:
            continue
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:  # for another platform or Python, or not wanted here
            continue
        for text in found[name].requires or ():
            try:
                requirement = Requirement(text)
            except InvalidRequirement:
                continue
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name)
    return found


def _is_editable(found: Distribution) -> bool:
    about = found.read_text("direct_url.json")
    return about is not None and bool(json.loads(about).get("dir_info", {}).get("editable"))


def _modules_of(found: Distribution) -> set[str]:
    """The modules of a checkout: those that its entry points name, and the one that is called as it is."""
    named = {point.value.partition(":")[0].partition(".")[0] for point in found.entry_points}
    return {module for module in {*named, found.name.replace("-", "_")} if importlib.util.find_spec(module) is not None}


def _module_files(module: str) -> Iterator[tuple[str, Path]]:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        if spec is not None and spec.origin:
            yield Path(spec.origin).name, Path(spec.origin)
        return
    for place in spec.submodule_search_locations:
        for here, directories, names in os.walk(place):
            directories[:] = [name for name in directories if name not in _UNNEEDED]
            for name in names:
                if not name.endswith(".pyc"):
                    yield f"{module}/{Path(here, name).relative_to(place).as_posix()}", Path(here, name)
