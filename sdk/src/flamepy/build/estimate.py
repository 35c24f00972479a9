"""How large what is to be installed will be, by what the index says of it, before anything is downloaded."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from packaging.utils import parse_wheel_filename

from flamepy.build.archive import human_size, largest
from flamepy.build.errors import BuildError
from flamepy.build.processes import run
from flamepy.build.targets import Target

__all__ = ["check_size", "sizes_in"]

_SECONDS = 300


def check_size(order: Iterable[str], lock: Path, project: Path, target: Target, limit: int) -> tuple[int, Mapping[str, int]] | None:
    """Bytes to download in all and by distribution; None if the index does not tell.

    Args:
        order: the installer's resolution, but for where it writes.

    Raises:
        BuildError: more than the limit, told with the largest.
    """
    done = run([*order, "--format", "pylock.toml", "--output-file", os.fspath(lock)], cwd=project, seconds=_SECONDS)
    if done.returncode or not lock.is_file():
        return None  # the installation will say what is wrong, if anything is
    try:
        sizes = sizes_in(lock, target)
    finally:
        lock.unlink()
    total = sum(sizes.values())
    if total > limit:
        parts = ", ".join(f"{name} {human_size(size)}" for name, size in largest(sizes, 6).items())
        raise BuildError(
            f"the dependencies have {human_size(total)} to download, and an archive may have {human_size(limit)}. The largest: {parts}",
            hint="leave out what the image has, with --without NAME or a --target, or raise --size-limit; nothing was downloaded",
        )
    return total, sizes


def sizes_in(lock: Path, target: Target) -> dict[str, int]:
    """Of each distribution the file that the target will take; those of which the index tells no size count nothing."""
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    packages: list[dict[str, Any]] = tomllib.loads(lock.read_text(encoding="utf-8")).get("packages", [])
    order = {tag: rank for rank, tag in enumerate(target.tags())}
    sizes: dict[str, int] = {}
    for package in packages:
        ranked = [(rank, wheel.get("size", 0)) for wheel in package.get("wheels", ()) if (rank := _rank(wheel, order)) is not None]
        sizes[str(package["name"])] = min(ranked)[1] if ranked else int((package.get("sdist") or {}).get("size", 0))
    return sizes


def _rank(wheel: Mapping[str, Any], order: Mapping[Any, int]) -> int | None:
    name = str(wheel.get("name") or wheel.get("url") or wheel.get("path")).rpartition("/")[2].partition("#")[0]
    try:
        _, _, _, fitting = parse_wheel_filename(name.replace("%2B", "+"))
    except ValueError:
        return None
    return min((order[tag] for tag in fitting if tag in order), default=None)
