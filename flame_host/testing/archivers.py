"""The contract of archivers as a test class; a plugin's own tests inherit it.

::

    class TestZstdTar(ArchiverContract):
        @pytest.fixture
        def provider(self) -> Archiver:
            return ZstdTar()
"""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO, cast

import pytest

from flame_host._packages.unpack.parent import recognise, unpack
from flame_host.api import ArchiveError, ArchiveLimitError, Archiver, Limits, Member, MemberKind

__all__ = ["ArchiverContract", "contents", "pack"]

FILE, DIRECTORY, SYMLINK, HARDLINK = MemberKind.FILE, MemberKind.DIRECTORY, MemberKind.SYMLINK, MemberKind.HARDLINK
PROBES = 60  # places where an archive is cut or damaged


def file(name: str, content: bytes = b"", *, executable: bool = False) -> Member:
    return Member(name, FILE, len(content), executable, "", content)


def pack(provider: Archiver, members: Iterable[Member]) -> bytes:
    target = io.BytesIO()
    provider.write(members, target)
    return target.getvalue()


def contents(provider: Archiver, data: bytes, limits: Limits | None = None) -> list[Member]:
    """All members, the content of each taken as a whole, directories without the slash that some formats write."""
    found = []
    for member in provider.read(io.BytesIO(data), limits or Limits()):
        content = member.content if isinstance(member.content, bytes) else b"".join(member.content)
        found.append(member._replace(name=member.name.rstrip("/"), content=content))
    return found


class _WriteOnly(io.RawIOBase):
    """A target that can do nothing but take bytes, as a socket can."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.taken += data
        return len(data)

    def seekable(self) -> bool:
        return False


class ArchiverContract:
    """Inherit, and override the fixture `provider`."""

    hard_links = True
    """Whether the format can hold them."""

    @pytest.fixture
    def provider(self) -> Archiver:
        raise NotImplementedError("override this fixture to return your archiver")

    @pytest.fixture
    def tree(self) -> list[Member]:
        """A small project."""
        members = [
            Member("app", DIRECTORY),
            file("app/__init__.py", b"VERSION = 1\n"),
            file("app/run.sh", b"#!/bin/sh\necho run\n", executable=True),
            file("app/data.bin", bytes(range(256)) * 20),
            file("empty.txt"),
            Member("empty", DIRECTORY),
            Member("app/current", SYMLINK, link="data.bin"),
        ]
        return [*members, Member("app/copy.bin", HARDLINK, link="app/data.bin")] if self.hard_links else members

    # What must fail

    @pytest.mark.parametrize("noise", [b"", b"\0", b"not an archive at all\n" * 40, bytes(10_240), os.urandom(600)], ids=range(5))
    def test_what_is_no_archive_is_an_archive_error(self, provider: Archiver, noise: bytes) -> None:
        if provider.name == "tar" and noise == bytes(10_240):
            pytest.skip("zeros are an empty tar")
        with pytest.raises(ArchiveError):
            contents(provider, noise)

    def test_an_archive_cut_off_anywhere_never_passes_for_another(self, provider: Archiver, tree: list[Member]) -> None:
        data = pack(provider, tree)
        whole = contents(provider, data)
        for length in sorted({*range(0, len(data), max(1, len(data) // PROBES)), *range(max(0, len(data) - 24), len(data))}):
            try:
                found = contents(provider, data[:length])
            except ArchiveError:
                continue
            assert found == whole, f"cut at byte {length} of {len(data)}, it was read as something else"

    def test_damage_anywhere_is_an_archive_error_if_it_is_seen(self, provider: Archiver, tree: list[Member]) -> None:
        data = pack(provider, tree)
        for position in range(0, len(data), max(1, len(data) // PROBES)):
            damaged = bytearray(data)
            damaged[position] ^= 0x55
            with contextlib.suppress(ArchiveError):
                contents(provider, bytes(damaged))

    @pytest.mark.parametrize("trailing", [b"x", b"\0" * 7 + b"PK", b"hidden" * 500], ids=["byte", "late", "much"])
    def test_something_behind_the_end_is_an_archive_error(self, provider: Archiver, tree: list[Member], trailing: bytes) -> None:
        with pytest.raises(ArchiveError):
            contents(provider, pack(provider, tree) + trailing)

    def test_a_second_archive_behind_the_end_is_an_archive_error(self, provider: Archiver, tree: list[Member]) -> None:
        with pytest.raises(ArchiveError):
            contents(provider, pack(provider, tree) + pack(provider, [file("second")]))

    def test_an_archive_larger_than_the_budget_is_not_read(self, provider: Archiver, tree: list[Member]) -> None:
        data = pack(provider, tree)
        with pytest.raises(ArchiveLimitError) as caught:
            contents(provider, data, Limits(compressed_bytes=len(data) - 1))
        assert caught.value.budget == "compressed-bytes"

    @pytest.mark.parametrize("content", [b"less", b"much more than was said", [b"in ", b"pieces"]], ids=["less", "more", "pieces"])
    def test_content_of_another_size_than_announced_is_not_packed(self, provider: Archiver, content: bytes | list[bytes]) -> None:
        given = content if isinstance(content, bytes) else iter(content)
        with pytest.raises(ArchiveError):
            pack(provider, [Member("changed.txt", FILE, 7, False, "", given)])

    def test_a_device_is_not_packed(self, provider: Archiver) -> None:
        with pytest.raises(ArchiveError):
            pack(provider, [Member("pipe", MemberKind.OTHER)])

    # What must work

    def test_it_is_an_archiver(self, provider: Archiver) -> None:
        assert isinstance(provider, Archiver)
        assert provider.name
        assert provider.suffixes
        assert all(suffix.startswith(".") and suffix == suffix.lower() for suffix in provider.suffixes)
        assert provider.magic
        assert all(offset >= 0 and magic for offset, magic in provider.magic)

    def test_everything_comes_back_in_order(self, provider: Archiver, tree: list[Member]) -> None:
        assert contents(provider, pack(provider, tree)) == tree

    def test_an_archive_without_members_is_one(self, provider: Archiver) -> None:
        assert contents(provider, pack(provider, [])) == []

    @pytest.mark.parametrize(
        "name",
        [
            "a" * 255,
            "/".join(["long"] * 40) + "/" + "n" * 120,
            "naïve/Ünïcödé.py",
            "日本語/データ.txt",
            "with space/and 'quotes'",
            "-rf",
            "🜂" * 60,
        ],
        ids=["component", "path", "latin", "japanese", "space", "dash", "wide"],
    )
    def test_odd_names_come_back(self, provider: Archiver, name: str) -> None:
        parent = name.rpartition("/")[0]
        members = [*([Member(parent, DIRECTORY)] if parent else []), file(name, b"content"), Member("link", SYMLINK, link=name)]
        assert contents(provider, pack(provider, members)) == members

    @pytest.mark.parametrize("size", [1, 511, 512, 513, 10_240, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 9 << 20])
    def test_content_of_any_size_comes_back(self, provider: Archiver, size: int) -> None:
        content = (b"%032d" % size * (size // 32 + 1))[:size]
        assert contents(provider, pack(provider, [file("before"), file("it", content), file("after", b"!")]))[1].content == content

    def test_content_may_be_given_in_pieces(self, provider: Archiver) -> None:
        content = bytes(range(256)) * 8192
        whole = pack(provider, [file("large", content), file("small", b"abc")])
        for cut in (1 << 16, 1000, 777_777):
            pieces: Iterator[bytes] = (content[start : start + cut] for start in range(0, len(content), cut))
            members = [
                Member("large", FILE, len(content), False, "", pieces),
                Member("small", FILE, 3, False, "", iter((b"", b"ab", b"c"))),
            ]
            assert pack(provider, members) == whole, "the bytes depend on how the content was cut"

    def test_the_same_members_give_the_same_bytes(self, provider: Archiver, tree: list[Member]) -> None:
        first = pack(provider, tree)
        assert pack(provider, iter(tree)) == first
        assert pack(type(provider)(), tree) == first, "the bytes depend on the provider's past"

    def test_the_target_need_only_take_bytes(self, provider: Archiver, tree: list[Member]) -> None:
        target = _WriteOnly()
        provider.write(tree, cast(BinaryIO, target))
        assert not target.closed
        assert bytes(target.taken) == pack(provider, tree)

    def test_two_archives_can_be_read_at_once(self, provider: Archiver, tree: list[Member]) -> None:
        other = [file(f"other{index}", b"%d" % index) for index in range(len(tree))]
        readers = [provider.read(io.BytesIO(pack(provider, members)), Limits()) for members in (tree, other)]
        names = [[member.name.rstrip("/") for member in column] for column in zip(*zip(*readers, strict=True), strict=True)]
        assert names == [[member.name for member in tree], [member.name for member in other]]

    def test_threads_may_share_a_provider(self, provider: Archiver, tree: list[Member]) -> None:
        expected = pack(provider, tree)
        packed: list[bytes] = []
        threads = [threading.Thread(target=lambda: packed.append(pack(provider, tree))) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert packed == [expected] * 4

    def test_its_suffix_and_magic_announce_it(self, provider: Archiver, tree: list[Member], tmp_path: Path) -> None:
        for index, members in enumerate((tree, [])):
            for suffix in provider.suffixes:
                path = tmp_path / f"package-{index}{suffix}"
                path.write_bytes(pack(provider, members))
                if members:
                    assert recognise(path, [provider]) is provider

    def test_the_host_can_unpack_it(self, provider: Archiver, tree: list[Member], tmp_path: Path) -> None:
        archive, target = tmp_path / f"package{provider.suffixes[0]}", tmp_path / "tree"
        archive.write_bytes(pack(provider, tree))
        summary = unpack(archive, target, provider, Limits())
        assert summary.count == len(tree)
        for member in tree:
            path = target / member.name
            if member.kind == DIRECTORY:
                assert path.is_dir()
            elif member.kind == SYMLINK:
                assert os.readlink(path) == member.link
            elif member.kind == FILE:
                assert path.read_bytes() == member.content
                assert path.stat().st_mode & 0o777 == (0o755 if member.executable else 0o644)
        if self.hard_links:
            assert (target / "app/copy.bin").read_bytes() == (target / "app/data.bin").read_bytes()
            assert (target / "app/copy.bin").stat().st_nlink == 1
