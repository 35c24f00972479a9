"""Zip, stored or deflated, with zip64 and data descriptors."""

# No typing or collections.abc at run time: the child that unpacks imports this, and its start is part of every unpacking.
from __future__ import annotations

from flame_archive_zip.reader import read_members

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import BinaryIO

    from flame_host.api import Limits, Member

__all__ = ["Zip"]


class Zip:
    """A hard link cannot be written: the format has none."""

    name = "zip"
    suffixes: Sequence[str] = (".zip",)
    magic: Sequence[tuple[int, bytes]] = ((0, b"PK\x03\x04"), (0, b"PK\x05\x06"))

    def write(self, members: Iterable[Member], target: BinaryIO) -> None:
        from flame_archive_zip.writer import write_members

        write_members(members, target)

    def read(self, source: BinaryIO, limits: Limits) -> Iterator[Member]:
        return read_members(source, limits)
