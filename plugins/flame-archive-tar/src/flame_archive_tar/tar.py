"""The four tar formats: one reader and one writer, each over a compression.

A provider is a small class without arguments, so that the child that unpacks can make one from its name alone.
"""

# No typing or collections.abc at run time: the child that unpacks imports this, and its start is part of every unpacking.
from __future__ import annotations

from flame_archive_tar import compression
from flame_archive_tar.reader import read_members
from flame_archive_tar.writer import write_members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from flame_host.api import Limits, Member

__all__ = ["Tar", "TarBz2", "TarGz", "TarXz"]


class Tar:
    """Plain tar; the others differ in the stream it lies in."""

    name = "tar"
    suffixes: Sequence[str] = (".tar",)
    magic: Sequence[tuple[int, bytes]] = ((257, b"ustar"),)
    stream: type[compression.Plain] = compression.Plain

    def write(self, members: Iterable[Member], target: BinaryIO) -> None:
        stream = self.stream()
        write_members(members, lambda data: _put(target, stream.compress(data)))
        _put(target, stream.finish())

    def read(self, source: BinaryIO, limits: Limits) -> Iterator[Member]:
        size = source.seek(0, 2)
        return read_members(self.stream().chunks(source, limits), limits, size)


class TarGz(Tar):
    name = "tar.gz"
    suffixes = (".tar.gz", ".tgz")
    magic = ((0, b"\x1f\x8b\x08"),)
    stream = compression.Gzip


class TarBz2(Tar):
    name = "tar.bz2"
    suffixes = (".tar.bz2", ".tbz2")
    magic = ((0, b"BZh"),)
    stream = compression.Bzip2


class TarXz(Tar):
    name = "tar.xz"
    suffixes = (".tar.xz", ".txz")
    magic = ((0, b"\xfd7zXZ\x00"),)
    stream = compression.Xz


def _put(target: BinaryIO, data: bytes) -> None:
    if data:
        target.write(data)
