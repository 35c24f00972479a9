"""Writing zip: nothing of the machine or the moment goes in (1980, modes 0644 and 0755, owner unknown).

The same input must give the same bytes on every machine. All builds of the original zlib deflate alike, its successors do not; so
the writer first compresses a sample whose result is known, and stores instead of compressing where that comes out otherwise.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from functools import lru_cache
from stat import S_IFDIR, S_IFLNK, S_IFREG
from typing import BinaryIO

from flame_archive_zip.directory import CENTRAL, DEFLATED, END, END64, FULL_16, FULL_32, LOCATOR, STORED, STREAMED, UNICODE
from flame_archive_zip.reader import LOCAL
from flame_host.api import ArchiveError, Member, MemberKind

LEVEL = 6
IN_MEMORY = 8 << 20
LARGE = 0xF0000000  # zip64 from here on: deflate may add a little to 4 GiB
UNIX = 3
TIME, DATE = 0, 0x21  # midnight, 1 January 1980
NEEDS, NEEDS_ZIP64 = 20, 45
SAMPLE_CHECKSUM = 2374785246


def write_members(members: Iterable[Member], target: BinaryIO) -> None:
    output = _Output(target)
    directory = [_write_member(member, output) for member in members]
    start = output.position
    for entry in directory:
        output.write(entry)
    output.write(_end(len(directory), output.position - start, start))


class _Output:
    """Counts what goes out: the target need not be seekable."""

    def __init__(self, target: BinaryIO) -> None:
        self._target = target
        self.position = 0

    def write(self, data: bytes) -> None:
        self._target.write(data)
        self.position += len(data)


class _Content:
    """The content of a member, measured while it passes."""

    def __init__(self, member: Member) -> None:
        self.crc = self.size = 0
        content: bytes | Iterator[bytes] = b""
        if member.kind == MemberKind.FILE:
            content = member.content
        elif member.kind == MemberKind.SYMLINK:
            content = member.link.encode()
        self._pieces = iter((content,)) if isinstance(content, bytes) else content

    def __iter__(self) -> Iterator[bytes]:
        for piece in self._pieces:
            self.crc = zlib.crc32(piece, self.crc)
            self.size += len(piece)
            yield piece


def _write_member(member: Member, output: _Output) -> bytes:
    """Write the local record; returns the entry of the directory."""
    start = output.position
    name, external = _describe(member)
    flags = 0 if name.isascii() else UNICODE
    file = member.kind == MemberKind.FILE
    content = _Content(member)
    method = DEFLATED if file and member.size and deflate_agrees() else STORED
    packed = _deflate(content) if method == DEFLATED else iter(content)
    if file and member.size > IN_MEMORY:
        flags |= STREAMED
        large = member.size >= LARGE
        output.write(_local(name, flags, method, (0, FULL_32, FULL_32) if large else (0, 0, 0)))
        begin = output.position
        for piece in packed:
            output.write(piece)
        compressed = output.position - begin
        width = 8 if large else 4
        output.write(b"PK\x07\x08" + _number(content.crc, 4) + _number(compressed, width) + _number(content.size, width))
    else:
        body = b"".join(packed)
        compressed = len(body)
        output.write(_local(name, flags, method, (content.crc, compressed, content.size)) + body)
    if file and content.size != member.size:
        raise ArchiveError(
            f"{member.name!r} was announced with {member.size} bytes, and {content.size} came: did it change while it was packed?"
        )
    return _central(name, flags, method, (content.crc, compressed, content.size), external, start)


def _describe(member: Member) -> tuple[bytes, int]:
    """Name and external attributes."""
    name = member.name
    if member.kind == MemberKind.FILE:
        return name.encode(), (S_IFREG | (0o755 if member.executable else 0o644)) << 16
    if member.kind == MemberKind.DIRECTORY:
        return f"{name.rstrip('/')}/".encode(), (S_IFDIR | 0o755) << 16 | 0x10
    if member.kind == MemberKind.SYMLINK:
        return name.encode(), (S_IFLNK | 0o777) << 16
    raise ArchiveError(f"{name!r} cannot be packed: a zip holds files, directories and symbolic links")


def _local(name: bytes, flags: int, method: int, numbers: tuple[int, int, int]) -> bytes:
    extra = b"\x01\x00\x10\x00" + bytes(16) if FULL_32 in numbers[1:] else b""
    needs = NEEDS_ZIP64 if extra else NEEDS
    return LOCAL.pack(b"PK\x03\x04", needs, flags, method, TIME, DATE, *numbers, len(name), len(extra)) + name + extra


def _central(name: bytes, flags: int, method: int, numbers: tuple[int, int, int], external: int, offset: int) -> bytes:
    crc, compressed, size = numbers
    extra = b"".join(_number(value, 8) for value in (size, compressed, offset) if value >= FULL_32)
    if extra:
        extra = b"\x01\x00" + _number(len(extra), 2) + extra
    needs = NEEDS_ZIP64 if extra else NEEDS
    compressed, size, offset = (min(value, FULL_32) for value in (compressed, size, offset))
    head = CENTRAL.pack(
        b"PK\x01\x02", UNIX << 8 | needs, needs, flags, method, TIME, DATE, crc, compressed, size,
        len(name), len(extra), 0, 0, 0, external, offset,
    )  # fmt: skip
    return head + name + extra


def _end(count: int, size: int, start: int) -> bytes:
    end = b""
    if count >= FULL_16 or size >= FULL_32 or start >= FULL_32:
        end = END64.pack(b"PK\x06\x06", END64.size - 12, UNIX << 8 | NEEDS_ZIP64, NEEDS_ZIP64, 0, 0, count, count, size, start)
        end += LOCATOR.pack(b"PK\x06\x07", 0, start + size, 1)
    few = min(count, FULL_16)
    return end + END.pack(b"PK\x05\x06", 0, 0, few, few, min(size, FULL_32), min(start, FULL_32), 0)


def _number(value: int, size: int) -> bytes:
    return value.to_bytes(size, "little")


def _deflate(content: Iterable[bytes]) -> Iterator[bytes]:
    deflater = zlib.compressobj(LEVEL, zlib.DEFLATED, -15)
    for piece in content:
        if packed := deflater.compress(piece):
            yield packed
    yield deflater.flush()


@lru_cache(maxsize=1)
def deflate_agrees() -> bool:
    """Whether this machine's zlib gives the bytes that the original gives."""
    return sample_checksum() == SAMPLE_CHECKSUM


def sample_checksum() -> int:
    """CRC-32 of the deflated sample: text-like and noisy parts, made by a linear congruence."""
    state, words = 1, []
    for _ in range(12_000):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        words.append(b"%d" % (state >> 16 & 0x3F) if state & 0x1000 else state.to_bytes(4, "little"))
    return zlib.crc32(b"".join(_deflate((b" ".join(words),))))
