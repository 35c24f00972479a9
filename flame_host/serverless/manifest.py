"""``flash_manifest.json`` as a running worker sees it: where it is, which version it speaks, and who this worker is."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

MANIFEST_NAME = "flash_manifest.json"
MAJOR_VERSION = "1"
"""A reader takes every minor version of its own major one, ignoring keys it does not know, and refuses any other major version."""

logger = logging.getLogger("flame_host.handler")


def load_manifest(path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Read the manifest, or give an empty one.

    Looked for, in this order: ``path``; ``FLAME_MANIFEST_PATH`` or ``FLASH_MANIFEST_PATH``; the current directory; the directory of
    ``flame_host`` and those above it. One that is named and exists is the answer even when it cannot be read; a broken one found by
    looking around is passed over.

    Args:
        path: where to look first; when nothing is there, the search goes on.
    """
    manifest = _named(path)
    if manifest is None:
        manifest = next((found for place in _places() if (found := _read(place)) not in (None, UNKNOWN)), None)
    if manifest is None:
        logger.warning("no %s was found: no function of another endpoint can be called", MANIFEST_NAME)
    return manifest if manifest and manifest is not UNKNOWN else empty_manifest()


def find_manifest() -> dict[str, Any]:
    """Like `load_manifest`, for what a worker may do: nothing is said when there is none, and a broken one is never passed over."""
    manifest = _named(None)
    if manifest is None:
        manifest = next((found for place in _places() if (found := _read(place)) is not None), None)
    return empty_manifest() if manifest is None else manifest


def empty_manifest() -> dict[str, Any]:
    return {"resources": {}, "function_registry": {}}


UNKNOWN: dict[str, Any] = {**empty_manifest(), "policy": {"pickle": "deny"}}
"""In place of one that is there and cannot be read: what it forbids is not known, so it is taken to be forbidden."""
MOST_BYTES = 32 << 20


def _named(path: str | os.PathLike[str] | None) -> dict[str, Any] | None:
    for given in (path, os.environ.get("FLAME_MANIFEST_PATH"), os.environ.get("FLASH_MANIFEST_PATH")):
        if given and Path(given).is_file():
            return _read(Path(given))
    return None


def _places() -> Iterator[Path]:
    yield Path.cwd() / MANIFEST_NAME
    package = Path(__file__).resolve().parent.parent
    yield package / MANIFEST_NAME
    # An archive is flat: its root, where the manifest lies, holds `flame_host`. The directories above are where older layouts had it.
    for directory in tuple(package.parents)[:3]:
        yield directory / MANIFEST_NAME


def _read(path: Path) -> dict[str, Any] | None:
    """None when there is none, `UNKNOWN` when it cannot be read."""
    try:
        if not path.is_file():
            return None
        if path.stat().st_size > MOST_BYTES:
            raise ValueError(f"it has more than {MOST_BYTES} bytes")
        manifest = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        logger.warning("%s cannot be read and is not used; pickle is denied, for it may say so: %.500s", path, error)
        return UNKNOWN
    complaint = complaint_about(manifest)
    if complaint:
        logger.warning("%s is not used; pickle is denied, for it may say so: %s", path, complaint)
        return UNKNOWN
    return {**empty_manifest(), **manifest}


def complaint_about(manifest: object) -> str:
    """Why this side cannot read it; empty when it can."""
    if not isinstance(manifest, Mapping):
        return f"it holds a {type(manifest).__name__}, not an object"
    version = str(manifest.get("version", MAJOR_VERSION))
    if version.partition(".")[0] != MAJOR_VERSION:
        return f"it is of version {version}, and this side reads version {MAJOR_VERSION}; build it again, or update flame-host"
    for key in ("resources", "function_registry"):
        if not isinstance(manifest.get(key, {}), Mapping):
            return f"its {key!r} is not an object"
    for name, about in manifest.get("resources", {}).items():
        if not isinstance(about, Mapping):
            return f"its resource {name!r:.100} is not an object"
    return ""


def declared_methods(manifest: Mapping[str, Any]) -> dict[str, frozenset[str]]:
    """What may be called of each class the manifest knows, by the name it is registered under; of a function, nothing."""
    found = {}
    for about in manifest["resources"].values():
        functions = about.get("functions") if isinstance(about, Mapping) else None
        for function in functions if isinstance(functions, list) else ():
            if isinstance(function, Mapping) and isinstance(function.get("name"), str):
                methods = function.get("methods")
                names = {str(method.get("name")) for method in methods if isinstance(method, Mapping)} if isinstance(methods, list) else ()
                found[function["name"]] = frozenset(names)
    return found


def who_am_i() -> str:
    """The resource this process serves, as its deployment says; empty outside of a worker."""
    for name in ("FLASH_RESOURCE_NAME", "FLAME_RESOURCE_NAME", "RUNPOD_ENDPOINT_ID"):
        if os.environ.get(name):
            return os.environ[name]
    return ""
