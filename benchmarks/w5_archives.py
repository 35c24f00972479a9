"""W5: a tar.gz of 5,000 files, unpacked and packed; `benchmarks.archives` has the ways."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flame_archive_tar.tar import TarGz

from benchmarks._contender import Options
from benchmarks._measure import Promise, Row, interleave
from benchmarks.archives import make_tree, pack_ours, pack_tarfile, timed, unpack_gnu, unpack_tarfile
from flame_host._packages.unpack.parent import unpack
from flame_host.api import Limits, Member

FILES = 5_000


def write_floor(members: list[Member], target: Path) -> None:
    """Every file opened, written and closed, and nothing else."""
    for directory in sorted({os.path.dirname(member.name) for member in members}):
        (target / directory).mkdir(parents=True)
    at = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
    for member in members:
        descriptor = os.open(member.name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644, dir_fd=at)
        assert isinstance(member.content, bytes)
        os.write(descriptor, member.content)
        os.close(descriptor)
    os.close(at)


def rows(options: Options) -> list[Row]:
    members = make_tree(options.fewer(FILES))
    unpacking = Row(f"W5 {len(members):,} files unpacked", "ms", [Promise("GNU tar", 1.5)])
    packing = Row(f"W5 {len(members):,} files packed", "ms", [Promise("tarfile, level 6", 0.5)])
    place = options.scratch / "archives"
    place.mkdir()
    archive = place / "ours.tar.gz"

    def pack(way: Callable[[list[Member], Path], None], path: Path) -> float:
        return 1e3 * timed(lambda: way(members, path))

    made = 0

    def into(way: Callable[[Path], object]) -> float:
        """Trees stay until the end of the run: making files is slow for minutes after many were deleted."""
        nonlocal made
        made += 1
        return 1e3 * timed(lambda: way(place / f"tree-{made}"))

    turns = {"ours": lambda: pack(pack_ours, archive), "tarfile, level 6": lambda: pack(pack_tarfile, place / "tarfile.tar.gz")}
    interleave(packing, turns, options.rounds)
    ways: dict[str, Callable[[Path], object]] = {
        "files written only": lambda target: write_floor(members, target),
        "GNU tar": lambda target: unpack_gnu(archive, target),
        "ours": lambda target: unpack(archive, target, TarGz(), Limits()),
        "tarfile": lambda target: unpack_tarfile(archive, target),
    }
    for way in ways.values():
        into(way)  # warms the page cache up
    interleave(unpacking, {name: partial(into, way) for name, way in ways.items()}, options.rounds)
    return [unpacking, packing]
