"""The archive: the build directory as it is, flat, and the same bytes for the same files."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

from flamepy._package.pack import members
from flamepy.build.errors import BuildError

__all__ = ["files_below", "human_size", "sizes_of", "write_archive"]

FORMAT = "tar.gz"


def write_archive(build: Path, archive: Path, *, size_limit: int) -> tuple[str, int]:
    """Write it in place of what stands there; returns its SHA-256 and size.

    Raises:
        BuildError: it would be larger than the limit; nothing is left of it then.
    """
    from flame_host import Host

    archive.parent.mkdir(parents=True, exist_ok=True)
    part = archive.with_name(f".{archive.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as target:
            Host().catalog.archiver(FORMAT).write(members(build, files_below(build)), target)
        size = part.stat().st_size
        if size > size_limit:
            raise BuildError(
                f"the archive has {human_size(size)}; {human_size(size_limit)} are allowed. The largest parts: {_largest(build)}",
                hint="leave files out with --exclude or .flameignore, use --no-deps if the image has them, or raise --size-limit",
            )
        digest = hashlib.sha256()
        with part.open("rb") as stream:
            while piece := stream.read(1 << 20):
                digest.update(piece)
        os.replace(part, archive)
    finally:
        part.unlink(missing_ok=True)
    return digest.hexdigest(), size


def files_below(directory: Path) -> list[str]:
    """Relative names, sorted; bytecode is nobody's source."""
    found = []
    for base, directories, files in os.walk(directory):
        directories[:] = [name for name in directories if name != "__pycache__"]
        links = [name for name in directories if os.path.islink(os.path.join(base, name))]
        found += [os.path.relpath(os.path.join(base, name), directory).replace(os.sep, "/") for name in [*files, *links]]
    return sorted(found)


def sizes_of(build: Path) -> dict[str, int]:
    """Bytes by top-level name."""
    sizes: dict[str, int] = {}
    for name in files_below(build):
        top = name.partition("/")[0]
        sizes[top] = sizes.get(top, 0) + os.lstat(build / name).st_size
    return sizes


def _largest(build: Path) -> str:
    return ", ".join(f"{name} {human_size(size)}" for name, size in largest(sizes_of(build), 5).items())


def largest(sizes: Mapping[str, int], count: int) -> dict[str, int]:
    return dict(sorted(sizes.items(), key=lambda item: (-item[1], item[0]))[:count])


def human_size(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"
