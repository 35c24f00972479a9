"""Every legitimate archive is accepted, however odd, and its tree comes out as it went in."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import odd_archives
import pytest
from flame_archive_tar.plugin import flame_archivers as tar_archivers
from flame_archive_zip.plugin import flame_archivers as zip_archivers
from odd_archives import Odd, harvest

from flame_host._packages.unpack.tree import write_tree
from flame_host.api import Archiver, Limits

ARCHIVERS: dict[str, Archiver] = {archiver.name: archiver for archiver in [*tar_archivers(), *zip_archivers()]}
CASES = list(odd_archives.cases())
README = Path(__file__).parents[3] / "plugins" / "flame-archive-tar" / "README.md"
PUBLISHED = {"tar": 50, "tar.gz": 8, "tar.bz2": 5, "tar.xz": 7, "zip": 30}


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_odd_archive_is_accepted(case: Odd, tmp_path: Path) -> None:
    archive, tree = tmp_path / "archive", tmp_path / "tree"
    case.write(archive)
    tree.mkdir()
    with archive.open("rb") as source:
        write_tree(ARCHIVERS[case.format].read(source, Limits()), tree, Limits(), compressed_size=archive.stat().st_size)
    assert harvest(tree) == case.expected


def test_the_published_counts_are_true() -> None:
    assert Counter(case.format for case in CASES) == PUBLISHED
    assert len({case.name for case in CASES}) == len(CASES)
    assert f"{len(CASES)} legitimate odd ones" in README.read_text().replace("\n", " ")
