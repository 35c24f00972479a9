"""A finished directory is as it was made, or is not used; what came on top of it is gone."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest

from flame_host._packages import seals
from flame_host._packages.directories import ContentStore
from flame_host._packages.files import LARGE, FileStore
from flame_host._packages.listings import check_listing
from flame_host._packages.stock import Stock
from flame_host.api import Limits, PackageError

KEY = "5e" * 32


def build(directory: Path) -> dict[str, str]:
    (directory / "package").mkdir()
    (directory / "package" / "module.py").write_text("VALUE = 1\n")
    return {}


@pytest.fixture
def store(tmp_path: Path) -> ContentStore:
    return ContentStore(tmp_path / "root")


def test_what_was_changed_is_made_anew_even_with_size_and_time_restored(store: ContentStore, caplog: pytest.LogCaptureFixture) -> None:
    entry = store.ensure("trees", KEY, build)
    module = entry.path / "package" / "module.py"
    before = module.stat()
    os.chmod(module, 0o644)
    module.write_text("VALUE = 2\n")
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))
    entry.release()
    again = store.ensure("trees", KEY, build)
    assert (again.path / "package" / "module.py").read_text() == "VALUE = 1\n"
    assert "package/module.py" in caplog.text


def test_one_that_is_in_use_is_left_to_its_users(store: ContentStore) -> None:
    entry = store.ensure("trees", KEY, build)
    module = entry.path / "package" / "module.py"
    os.chmod(module, 0o644)
    module.write_text("VALUE = 2\n")
    other = store.ensure("trees", KEY, build)
    assert other.path != entry.path
    assert module.read_text() == "VALUE = 2\n"
    assert (other.path / "package" / "module.py").read_text() == "VALUE = 1\n"


def test_bytecode_that_was_added_is_removed(store: ContentStore) -> None:
    entry = store.ensure("trees", KEY, build)
    os.chmod(entry.path / "package", 0o755)
    (entry.path / "package" / "__pycache__").mkdir()
    (entry.path / "package" / "__pycache__" / "module.cpython-311.pyc").write_bytes(b"poison")
    entry.release()
    again = store.ensure("trees", KEY, build)
    assert again.path == entry.path
    assert sorted(path.name for path in again.path.rglob("*")) == ["module.py", "package"]


def test_everything_is_read_only_and_can_be_removed_all_the_same(store: ContentStore) -> None:
    entry = store.ensure("trees", KEY, build)
    assert not any(path.stat().st_mode & 0o222 for path in (entry.path, entry.path / "package", entry.path / "package" / "module.py"))
    entry.release()
    assert [info.key for info in store.prune(time.time() + 10)] == [KEY]
    assert list((store.root / "trees").iterdir()) == []
    assert not (store.root / "trash").exists()


def test_a_content_that_was_changed_is_not_handed_out(tmp_path: Path) -> None:
    files = FileStore(tmp_path / "root", Limits())
    project = tmp_path / "project"
    project.mkdir()
    (project / "large.bin").write_bytes(b"x" * LARGE)
    (project / "small.txt").write_text("small")
    package = files.keep(project, ["large.bin", "small.txt"], {}, {})
    listing = Path(package.url.removeprefix("file://"))
    shared = files.unpack(listing, tmp_path / "first")
    assert len(shared) == 1
    content = tmp_path / "root" / "files" / shared[0][:2] / shared[0]
    os.chmod(content, 0o644)
    content.write_bytes(b"y" * LARGE)
    with pytest.raises(PackageError, match=r"large\.bin was changed"):
        files.unpack(listing, tmp_path / "second")
    assert files.keep(project, ["large.bin", "small.txt"], {}, {}) == package
    files.unpack(listing, tmp_path / "third")
    assert (tmp_path / "third" / "large.bin").read_bytes() == b"x" * LARGE


def test_contents_are_swept_when_no_package_and_no_tree_names_them(tmp_path: Path) -> None:
    stock = Stock(tmp_path)
    project = tmp_path / "project"
    project.mkdir()
    (project / "a.bin").write_bytes(b"a" * LARGE)
    package = stock.files.keep(project, ["a.bin"], {}, {})
    old = time.time() - 3600
    for path in (tmp_path / "files").glob("*/*"):
        os.utime(path, (old, old))
    kinds = {info.kind for info in stock.entries()}
    assert {"packs", "files"} <= kinds
    stock.prune(time.time() - 60)
    assert len(list((tmp_path / "files").glob("*/*"))) == 2, "the package still names it"
    os.utime(Path(package.url.removeprefix("file://")), (old, old))
    stock.prune(time.time() - 60)
    assert list((tmp_path / "files").glob("*/*")) == []


@pytest.mark.parametrize(
    ("names", "links", "said"),
    [
        (["a\nb"], {}, "cannot be packed"),
        (["caf\udce9"], {}, "cannot be packed"),
        (["Readme", "README"], {}, "one name on some file systems"),
        (["a", "link"], {"link": "b"}, "which is not in the package"),
        (["d/a", "one", "two"], {"one": "d", "two": "one/a"}, "leads through another link"),
        (["/".join("a" * 70)], {}, "directories deep"),
    ],
)
def test_a_listing_that_no_host_would_unpack_is_refused(names: list[str], links: dict[str, str], said: str) -> None:
    with pytest.raises(PackageError, match=said):
        check_listing(names, links, Limits())


def test_looking_at_a_directory_that_was_never_sealed_counts_as_changed(tmp_path: Path) -> None:
    assert seals.broken(tmp_path, tmp_path / "no-note") != ""
