"""What we bring into an application's environment: links to single modules, in a directory that goes last on the worker's path.

Linked, not installed: the application's own versions win, and nothing of ours can shadow anything of theirs.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import tempfile
from collections.abc import Iterable, Iterator
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from flame_host._private import make_private

CLIENT_MODULES = (
    "flamepy",
    "flame_host",
    "pluggy",
    "platformdirs",
    "packaging",
    "cloudpickle",
    "yaml",
    "_yaml",
    "pathspec",
    "tblib",
    "tomli",
)
CLIENT_DISTRIBUTIONS = ("flame-host", "flame-host-sdk", "uv", "pip")
"""What a task needs to import its program, and to use a Runner itself. What of it is compiled has a second half in Python."""


def support_directory(root: Path, codec_modules: Iterable[str], with_client: bool) -> Path:
    """A directory below ``root`` with links to the modules; made once for each set of modules and places."""
    links = dict(_links(codec_modules))
    if with_client:
        links.update(_links(CLIENT_MODULES))
        links.update(_plugin_links())
    content = "\n".join(f"{name} {target}" for name, target in sorted(links.items()))
    directory = root / "support" / hashlib.sha256(content.encode()).hexdigest()[:16]
    if not directory.is_dir():
        _make(directory, links)
    os.utime(directory)
    _hold(root / "locks" / f"support-{directory.name}")
    return directory


_held: dict[Path, int] = {}


def _hold(lock: Path) -> None:
    """In use until this process ends: its workers import from there."""
    if lock not in _held:
        make_private(lock.parent)
        _held[lock] = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(_held[lock], fcntl.LOCK_SH | fcntl.LOCK_NB)


def _links(modules: Iterable[str]) -> Iterator[tuple[str, Path]]:
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is None:
            continue
        if spec.submodule_search_locations:
            yield module, Path(next(iter(spec.submodule_search_locations)))
        elif spec.origin and spec.origin not in ("built-in", "frozen"):
            yield Path(spec.origin).name, Path(spec.origin)


def _plugin_links() -> Iterator[tuple[str, Path]]:
    """The plugins' modules, and the metadata by which they are found."""
    from flame_host._plugins.loading import scan

    names = set(CLIENT_DISTRIBUTIONS)
    modules = set()
    for found in scan():
        names.add(found.distribution)
        modules.add(found.entry_point.value.partition(".")[0])
    yield from _links(sorted(modules))
    for name in sorted(names):
        try:
            path = getattr(distribution(name), "_path", None)
        except PackageNotFoundError:
            continue
        if path is not None:
            yield path.name, Path(str(path))


def _make(directory: Path, links: dict[str, Path]) -> None:
    make_private(directory.parent)
    building = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))  # threads of one process may meet here
    for name, target in links.items():
        (building / name).symlink_to(target)
    try:
        building.rename(directory)
    except OSError:  # somebody else was quicker, with the same content
        for name in links:
            (building / name).unlink(missing_ok=True)
        building.rmdir()


def runs_client(python_version: str) -> bool:
    """Whether our own code runs on that Python."""
    parts = python_version.split(".")
    return len(parts) > 1 and (int(parts[0]), int(parts[1])) >= (3, 10)
