"""Every hostile archive ends in its own error, and leaves nothing outside its directory."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import hostile_tar
import hostile_zip
import pytest
from corpus import Case, mark_of
from flame_archive_tar.plugin import flame_archivers as tar_archivers
from flame_archive_zip.plugin import flame_archivers as zip_archivers

from flame_host._packages.unpack.parent import unpack
from flame_host._packages.unpack.tree import write_tree
from flame_host.api import ArchiveError, Archiver

ARCHIVERS: dict[str, Archiver] = {archiver.name: archiver for archiver in [*tar_archivers(), *zip_archivers()]}
CASES = [*hostile_tar.cases(), *hostile_zip.cases()]
ONE_OF_EACH = {(case.error, case.mark): case for case in CASES}
README = Path(__file__).parents[3] / "plugins" / "flame-archive-tar" / "README.md"
PUBLISHED = {"tar": 236, "tar.gz": 18, "tar.bz2": 10, "tar.xz": 10, "zip": 189}


@pytest.fixture
def cell(tmp_path: Path) -> Path:
    """A directory whose neighbours are watched."""
    (tmp_path / "outside").write_text("untouched")
    return tmp_path


def unpack_here(case: Case, archive: Path, tree: Path) -> None:
    """Without the child, which costs more than the rest of the test."""
    with archive.open("rb") as source:
        write_tree(ARCHIVERS[case.format].read(source, case.limits), tree, case.limits, compressed_size=len(case.data))


def check_outside(cell: Path) -> None:
    assert {path.name for path in cell.iterdir()} <= {"outside", "archive", "tree"}
    assert (cell / "outside").read_text() == "untouched"


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_hostile_archive_ends_in_its_own_error(case: Case, cell: Path) -> None:
    archive = cell / "archive"
    archive.write_bytes(case.data)
    (cell / "tree").mkdir()
    with pytest.raises(ArchiveError) as caught:
        unpack_here(case, archive, cell / "tree")
    assert (type(caught.value), mark_of(caught.value)) == (case.error, case.mark), str(caught.value)
    check_outside(cell)


@pytest.mark.parametrize("case", ONE_OF_EACH.values(), ids=lambda case: case.name)
def test_each_rule_and_budget_keeps_its_type_across_the_child(case: Case, cell: Path) -> None:
    archive = cell / "archive"
    archive.write_bytes(case.data)
    with pytest.raises(ArchiveError) as caught:
        unpack(archive, cell / "tree", ARCHIVERS[case.format], case.limits)
    assert (type(caught.value), mark_of(caught.value)) == (case.error, case.mark), str(caught.value)
    check_outside(cell)


def test_the_published_counts_are_true() -> None:
    assert Counter(case.format for case in CASES) == PUBLISHED
    assert len({case.name for case in CASES}) == len(CASES)
    assert len({(case.format, case.data) for case in CASES}) == len(CASES)
    assert len(CASES) >= 150
    assert f"{len(CASES)} hostile archives" in README.read_text()
