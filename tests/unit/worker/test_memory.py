"""Shared memory that is used again: by the kernel's word alone, never while anybody can still see what was there."""

from __future__ import annotations

import mmap
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_host.worker.runtime.memory import Kept, Mapped, MemorySegment

SIZE = 64 << 10


@pytest.fixture
def kept() -> Iterator[Kept]:
    """Memory of this test alone, and nothing of it left."""
    before = _descriptors()
    kept = Kept()
    yield kept
    kept.clear()
    assert _descriptors() == before


def _descriptors() -> set[str]:
    return {name for name in os.listdir("/proc/self/fd") if _target(name).startswith("/memfd:flame")}


def _target(name: str) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{name}")
    except FileNotFoundError:
        return ""


def _inode(segment: MemorySegment) -> int:
    return os.fstat(segment.fd).st_ino


def test_memory_that_nobody_holds_is_written_again(kept: Kept):
    first = MemorySegment.of(b"a" * SIZE, kept)
    inode = _inode(first)
    del first
    second = MemorySegment.of(b"b" * SIZE, kept)
    assert _inode(second) == inode
    assert bytes(second.view()) == b"b" * SIZE


def test_memory_that_is_only_mapped_is_left_alone(kept: Kept):
    first = MemorySegment.of(b"a" * SIZE, kept)
    view, inode = first.view(), _inode(first)
    del first
    second = MemorySegment.of(b"b" * SIZE, kept)
    assert _inode(second) != inode
    assert bytes(view) == b"a" * SIZE


def test_memory_that_another_process_holds_is_left_alone_until_that_is_gone_however_it_went(kept: Kept):
    first = MemorySegment.of(b"a" * SIZE, kept)
    inode = _inode(first)
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], pass_fds=[first.fd])
    try:
        del first
        held = MemorySegment.of(b"b" * SIZE, kept)
        assert _inode(held) != inode
    finally:
        other.send_signal(signal.SIGKILL)
        other.wait()
    assert _inode(MemorySegment.of(b"c" * SIZE, kept)) == inode


def test_a_shorter_buffer_takes_longer_memory_and_says_how_long_it_is(kept: Kept):
    MemorySegment.of(b"a" * SIZE, kept)
    segment = MemorySegment.of(b"b" * (SIZE // 2), kept)
    assert os.fstat(segment.fd).st_size == SIZE
    assert bytes(segment.view()) == b"b" * (SIZE // 2)
    assert len(MemorySegment.adopted(os.dup(segment.fd)).cut(SIZE // 2).view()) == SIZE // 2


def test_a_much_shorter_buffer_does_not(kept: Kept):
    MemorySegment.of(b"a" * SIZE, kept)
    assert os.fstat(MemorySegment.of(b"b" * 100, kept).fd).st_size == 100


def test_readers_cannot_write_grow_or_shrink_it(kept: Kept):
    segment = MemorySegment.of(b"a" * SIZE, kept)
    with pytest.raises(OSError):
        os.write(segment.fd, b"x")
    with pytest.raises(OSError):
        os.ftruncate(segment.fd, 1)
    with pytest.raises(PermissionError):
        mmap.mmap(segment.fd, SIZE, flags=mmap.MAP_SHARED, prot=mmap.PROT_WRITE)
    again = os.open(f"/proc/self/fd/{segment.fd}", os.O_RDWR)
    try:
        with pytest.raises(PermissionError):  # sealed: not even by who opens it anew
            os.ftruncate(again, 1)
    finally:
        os.close(again)


def test_a_segment_that_is_shorter_than_announced_is_refused(kept: Kept):
    with pytest.raises(ValueError, match="a segment of 65537 bytes was announced, it has 65536"):
        MemorySegment.of(b"a" * SIZE, kept).cut(SIZE + 1)


def test_only_a_few_are_kept(kept: Kept):
    segments = [MemorySegment.of(b"a" * SIZE, kept) for _ in range(20)]
    assert len(kept) == 4
    assert len({_inode(segment) for segment in segments}) == 20


def test_what_is_over_the_limit_is_not_kept():
    kept = Kept(limit=SIZE // 2)
    segment = MemorySegment.of(b"a" * SIZE, kept)
    assert not len(kept)
    assert bytes(segment.view()) == b"a" * SIZE


def test_little_is_kept_when_the_machine_has_little_left():
    kept = Kept(available=lambda: 100 << 20)
    for _ in range(2):
        MemorySegment.of(bytes(20 << 20), kept)
    assert len(kept) == 1
    held = [MemorySegment.of(bytes(20 << 20), kept) for _ in range(3)]
    assert len(kept) == 1
    assert len(held) == 3
    kept.clear()


def test_memory_is_let_go_of_soon_after_its_last_use():
    kept = Kept(seconds=0.05)
    MemorySegment.of(b"a" * SIZE, kept)
    assert len(kept) == 1
    deadline = time.monotonic() + 5
    while len(kept) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not len(kept)
    assert not _descriptors()


def test_a_forked_child_does_not_write_where_its_parent_may(kept: Kept, tmp_path: Path):
    MemorySegment.of(b"a" * SIZE, kept)
    pid = os.fork()
    if not pid:
        (tmp_path / "kept").write_text(str(len(kept)))
        os._exit(0)
    os.waitpid(pid, 0)
    assert (tmp_path / "kept").read_text() == "0"


def test_a_reference_that_comes_again_finds_its_mapping(kept: Kept):
    segment = MemorySegment.of(b"a" * SIZE, kept)
    mapped = Mapped()
    ((_, _, (first, twice)),) = mapped.again([("f", b"", [_received(segment), _received(segment)])])
    ((_, content, (second,)),) = mapped.again([("f", b"content", [_received(segment)])])
    assert first is twice is second
    assert content == b"content"
    ((_, _, (other,)),) = mapped.again([("f", b"", [_received(MemorySegment.of(b"b" * SIZE, kept))])])
    ((_, _, (third,)),) = mapped.again([("f", b"", [_received(segment)])])
    assert third is not first
    assert bytes(other.view()) == b"b" * SIZE
    mapped._segments = {}


def _received(segment: MemorySegment) -> MemorySegment:
    return MemorySegment.adopted(os.dup(segment.fd)).cut(segment.size)


def test_mappings_are_given_up_after_a_moment(kept: Kept):
    mapped = Mapped(seconds=0.05)
    mapped.again([("f", b"", [_received(MemorySegment.of(b"a" * SIZE, kept))])])
    deadline = time.monotonic() + 5
    while mapped._segments and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not mapped._segments
