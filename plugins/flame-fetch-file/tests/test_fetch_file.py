"""Packages on a file system: the contract, and what only files can do wrong."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from flame_fetch_file.file_store import FileStore

from flame_host.api import PackageNotFoundError, StoreError
from flame_host.testing.stores import StoreContract, package


class TestFileStore(StoreContract):
    @pytest.fixture
    def store(self) -> FileStore:
        return FileStore()

    @pytest.fixture
    def location(self, tmp_path: Path) -> str:
        return (tmp_path / "packages").as_uri()


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("file:relative/path", "not absolute"),
        ("file://server/share/p.zip", "names the host 'server'"),
        ("file:///p.zip?version=1", "query"),
        ("file:///p.zip#part", "fragment"),
        ("file:///p%00.zip", "NUL"),
        ("/no/scheme.zip", "not a file: URL"),
        ("http://host/p.zip", "not a file: URL"),
    ],
)
def test_a_url_that_names_no_file_of_this_machine_is_refused(url: str, reason: str, tmp_path: Path) -> None:
    for action in (lambda: FileStore().fetch(url, tmp_path / "target", size_limit=1, deadline=1), lambda: FileStore().delete(url)):
        with pytest.raises(StoreError, match=reason):
            action()


def test_directories_fifos_and_devices_are_not_fetched(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(StoreError):
            FileStore().fetch(path.as_uri(), tmp_path / "target", size_limit=100, deadline=5)
    with pytest.raises(PackageNotFoundError):
        FileStore().fetch((tmp_path / "fifo" / "below").as_uri(), tmp_path / "target", size_limit=100, deadline=5)


def test_a_directory_is_not_deleted(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="directory"):
        FileStore().delete(tmp_path.as_uri())
    assert tmp_path.exists()


def test_a_place_that_cannot_be_made_is_a_store_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    source, digest = package(tmp_path, b"x")
    with pytest.raises(StoreError, match="cannot publish"):
        FileStore().publish(source, (tmp_path / "file" / "below").as_uri(), name="p.zip", digest=digest)


def is_writing_below(pid: int, directory: Path) -> bool:
    """Whether a process has a file open there, be it one without a name."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(descriptor))
    return any(path.startswith(f"{directory}/") for path in found)


def test_a_killed_upload_leaves_nothing_that_looks_complete(tmp_path: Path) -> None:
    source, digest = package(tmp_path, os.urandom(1 << 20) * 200)
    location = tmp_path / "packages"
    program = (
        "import sys; from pathlib import Path; from flame_fetch_file.file_store import FileStore; "
        "FileStore().publish(Path(sys.argv[1]), sys.argv[2], name='p.zip', digest=sys.argv[3])"
    )
    process = subprocess.Popen([sys.executable, "-c", program, str(source), location.as_uri(), digest])
    try:
        until = time.monotonic() + 30
        while not is_writing_below(process.pid, location) and process.poll() is None and time.monotonic() < until:
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
    finally:
        process.wait(30)
    assert not list(location.glob(".*")), "a file that is not whole has no name"
    target = location / "p.zip"
    assert not target.exists() or hashlib.sha256(target.read_bytes()).hexdigest() == digest
    url = FileStore().publish(source, location.as_uri(), name="p.zip", digest=digest)
    FileStore().fetch(url, tmp_path / "target", size_limit=1 << 30, deadline=30)
    assert hashlib.sha256((tmp_path / "target").read_bytes()).hexdigest() == digest


def test_what_killed_uploads_left_is_swept_away_after_a_day(tmp_path: Path) -> None:
    old, fresh = tmp_path / ".p.zip.0123.part", tmp_path / ".p.zip.4567.part"
    for part in (old, fresh):
        part.write_bytes(b"half")
    os.utime(old, (time.time() - 90_000,) * 2)
    source, digest = package(tmp_path, b"x")
    FileStore().publish(source, tmp_path.as_uri(), name="q.zip", digest=digest)
    assert (old.exists(), fresh.exists()) == (False, True)


def test_the_same_content_is_not_written_again(tmp_path: Path) -> None:
    source, digest = package(tmp_path, b"x" * 1000)
    FileStore().publish(source, tmp_path.as_uri(), name="p.zip", digest=digest)
    before = (tmp_path / "p.zip").stat()
    FileStore().publish(source, tmp_path.as_uri(), name="p.zip", digest=digest, overwrite=True)
    after = (tmp_path / "p.zip").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_percent_encoding_and_localhost_are_understood(tmp_path: Path) -> None:
    source, digest = package(tmp_path, b"x")
    url = FileStore().publish(source, f"file://localhost{tmp_path}/my%20packages", name="p.zip", digest=digest)
    assert (tmp_path / "my packages" / "p.zip").read_bytes() == b"x"
    assert url == (tmp_path / "my packages" / "p.zip").as_uri()
