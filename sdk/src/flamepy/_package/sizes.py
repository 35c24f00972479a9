"""How much data a package carries: a line from 50 MB on, and a limit that keeps a data set from being shipped by accident."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from flame_host.api import PackageError

WARN_BYTES = 50_000_000
MOST_BYTES = 512_000_000
"""Configurable: ``package_limit``."""

_ROWS = 8

logger = logging.getLogger("flamepy.package")


def weigh(base: Path, files: Sequence[str], limit: int = MOST_BYTES) -> int:
    """The bytes of all files; much of it is told, too much refused, with what would leave the biggest out."""
    sizes: dict[str, int] = {}
    total = 0
    for name in files:
        size = os.lstat(base / name).st_size
        total += size
        sizes[name] = size
    if total < WARN_BYTES:
        return total
    table = "\n".join(f"  {amount(size):>9}  {line}" for line, size in _offenders(sizes))
    advice = "leave out what tasks do not read; these lines in .flameignore, or in [tool.flame] exclude, would:"
    if total > limit:
        raise PackageError(
            f"the package of {base} would have {amount(total)}, and {amount(limit)} are allowed; {advice}\n{table}",
            hint=f'or allow it: [tool.flame] package_limit = "{total // 1_000_000 + 1}MB", or Runner(package_limit=…)',
        )
    logger.warning("the package of %s has %s; %s\n%s", base, amount(total), advice, table)
    return total


def _offenders(sizes: dict[str, int]) -> list[tuple[str, int]]:
    """Directories and files by size, as lines of an ignore file; a directory that is all of one file is that file."""
    places: dict[str, int] = {}
    counts: dict[str, int] = {}
    for name, size in sizes.items():
        parts = name.split("/")
        place = "/".join(parts[:2]) + ("/" if len(parts) > 2 else "") if len(parts) > 1 else name
        places[place] = places.get(place, 0) + size
        counts[place] = counts.get(place, 0) + 1
    biggest = sorted(places.items(), key=lambda item: -item[1])[:_ROWS]
    return [("/" + place, size) for place, size in biggest if size >= 1_000_000]


def amount(size: int) -> str:
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"
