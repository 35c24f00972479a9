"""Reading members: each local record must say what the directory says, and end where the next one starts."""

from __future__ import annotations

from stat import S_IFDIR, S_IFLNK, S_IFMT, S_IFREG
from struct import Struct
from zlib import crc32, decompressobj
from zlib import error as DeflateError

from flame_archive_zip.directory import DEFLATED, FULL_32, STREAMED, UNIX, Entry, extra_fields, read_directory, unicode_name, zip64_values
from flame_host.api import ArchiveError, Member, MemberKind, UnsafeArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from flame_host.api import Limits

LOCAL = Struct("<4s5H3L2H")
CHUNK = 1 << 20
LINK_BYTES = 4096
DOS_DIRECTORY = 0x10


def read_members(source: BinaryIO, limits: Limits) -> Iterator[Member]:
    for entry in read_directory(source, limits):
        kind, executable = kind_of(entry)
        source.seek(entry.offset)
        head = source.read(min(entry.end - entry.offset, CHUNK))
        begin = check_local(head, entry)
        check_end(source, entry, entry.offset + begin + entry.compressed, head)
        if kind == MemberKind.FILE:
            if entry.size <= CHUNK and begin + entry.compressed <= len(head):
                yield Member(entry.name, kind, entry.size, executable, "", whole(entry, head[begin : begin + entry.compressed]))
            else:
                yield Member(entry.name, kind, entry.size, executable, "", pieces(source, entry, entry.offset + begin))
        elif kind == MemberKind.SYMLINK:
            if entry.size > LINK_BYTES or begin + entry.compressed > len(head):
                raise UnsafeArchiveError("link-too-long", entry.name, "the target of a symbolic link is too long")
            link = whole(entry, head[begin : begin + entry.compressed])
            yield Member(entry.name, kind, 0, False, link.decode("utf-8", "surrogateescape"))
        else:
            if entry.size or entry.compressed > 2:  # two bytes are an empty deflate stream, which some write
                raise UnsafeArchiveError("size-of-directory", entry.name, "a member that is no file has content")
            yield Member(entry.name, kind)


def kind_of(entry: Entry) -> tuple[MemberKind, bool]:
    slash = entry.name.endswith("/")
    mode = entry.external >> 16 if entry.system in UNIX else 0
    kinds = {0: MemberKind.DIRECTORY if slash else MemberKind.FILE, S_IFREG: MemberKind.FILE, S_IFDIR: MemberKind.DIRECTORY}
    kinds[S_IFLNK] = MemberKind.SYMLINK
    kind = kinds.get(S_IFMT(mode), MemberKind.OTHER)
    if slash != (kind == MemberKind.DIRECTORY) and kind != MemberKind.OTHER:
        raise UnsafeArchiveError("kind-mismatch", entry.name, "a member's name and its mode disagree on whether it is a directory")
    if entry.external & DOS_DIRECTORY and not slash:
        raise UnsafeArchiveError(
            "kind-mismatch", entry.name, "a member's name and its DOS attributes disagree on whether it is a directory"
        )
    return kind, mode & 0o111 != 0


def check_local(head: bytes, entry: Entry) -> int:
    """Compare with the directory; returns the length of the local header."""
    name = entry.name
    if len(head) < LOCAL.size or head[:4] != b"PK\x03\x04":
        raise ArchiveError(f"there is no member where the directory says {name!r} is")
    _, _, flags, method, _, _, crc, compressed, size, name_length, extra_length = LOCAL.unpack_from(head)
    begin: int = LOCAL.size + name_length + extra_length
    if head[LOCAL.size : LOCAL.size + name_length] != entry.raw_name or flags != entry.flags or method != entry.method:
        raise UnsafeArchiveError("local-central-mismatch", name, "a member is described in two ways")
    if begin + entry.compressed > entry.end - entry.offset:
        raise UnsafeArchiveError("overlap", name, "a member overlaps the next one or the directory")
    extra = extra_fields(head[begin - extra_length : begin]) if extra_length else {}
    told = unicode_name(extra, entry.raw_name)
    if told is not None and told != name.encode():
        raise UnsafeArchiveError("name-mismatch", name, "a member has two different names")
    # What comes later is left out; libarchive tells the sizes it knows already, which must then be true.
    streamed = flags & STREAMED and crc == 0 and compressed in (0, FULL_32, entry.compressed) and size in (0, FULL_32, entry.size)
    if 1 in extra and (streamed or FULL_32 not in (compressed, size)):
        # Python before 3.11 writes the field where nothing lacks; it may then only repeat the truth, or say that it comes later.
        repeated = entry.size.to_bytes(8, "little") + entry.compressed.to_bytes(8, "little")
        if extra.pop(1) not in (repeated, bytes(16) if streamed else repeated):
            raise UnsafeArchiveError("zip64-mismatch", name, "a zip64 field does not agree with its record")
    if streamed:
        return begin  # the data descriptor says it
    size, compressed = zip64_values(extra, (size, compressed), 0, name)
    if (crc, compressed, size) != (entry.crc, entry.compressed, entry.size):
        raise UnsafeArchiveError("local-central-mismatch", name, "a member's sizes or checksum are given in two ways")
    return begin


def check_end(source: BinaryIO, entry: Entry, end: int, head: bytes) -> None:
    """Behind the content comes the next record, or first the data descriptor, which must tell the truth."""
    length = entry.end - end
    if not length and not entry.flags & STREAMED:
        return
    descriptor = head[end - entry.offset : end - entry.offset + length]
    if len(descriptor) < length <= 24:
        source.seek(end)
        descriptor = source.read(length)
    truth = entry.crc.to_bytes(4, "little")
    for width in (4, 8):
        if entry.compressed >> 8 * width or entry.size >> 8 * width:
            continue
        sizes = entry.compressed.to_bytes(width, "little") + entry.size.to_bytes(width, "little")
        if descriptor in (truth + sizes, b"PK\x07\x08" + truth + sizes) and entry.flags & STREAMED:
            return
    if entry.flags & STREAMED and length <= 24:
        raise UnsafeArchiveError("data-descriptor", entry.name, "a member's data descriptor is missing or not true")
    raise UnsafeArchiveError("gap", entry.name, "something lies between a member and the next")


def whole(entry: Entry, data: bytes) -> bytes:
    if entry.method == DEFLATED:
        inflater = decompressobj(-15)
        try:
            data = inflater.decompress(data, entry.size + 1)
        except DeflateError as error:
            raise ArchiveError(f"{entry.name!r} is damaged: {error}") from error
        # A full output may leave the end mark unread.
        if len(data) == entry.size and not inflater.eof:
            data += inflater.decompress(inflater.unconsumed_tail, 1)
        if not inflater.eof or inflater.unused_data or len(data) != entry.size:
            raise ArchiveError(f"{entry.name!r} does not expand to the {entry.size} bytes it says")
    if crc32(data) != entry.crc:
        raise ArchiveError(f"the checksum of {entry.name!r} is wrong")
    return data


def pieces(source: BinaryIO, entry: Entry, position: int) -> Iterator[bytes]:
    left, size, crc = entry.compressed, 0, 0
    for piece in _expand(source, entry, position, left):
        size += len(piece)
        if size > entry.size:
            raise ArchiveError(f"{entry.name!r} expands to more than the {entry.size} bytes it says")
        crc = crc32(piece, crc)
        yield piece
    if size != entry.size:
        raise ArchiveError(f"{entry.name!r} expands to {size} bytes and not the {entry.size} it says")
    if crc != entry.crc:
        raise ArchiveError(f"the checksum of {entry.name!r} is wrong")


def _expand(source: BinaryIO, entry: Entry, position: int, left: int) -> Iterator[bytes]:
    inflater = decompressobj(-15) if entry.method == DEFLATED else None
    data = b""
    while left or data or (inflater and not inflater.eof):
        if not data:
            source.seek(position)
            data = source.read(min(left, CHUNK))
            if len(data) < min(left, CHUNK):
                raise ArchiveError("the archive is truncated")
            position += len(data)
            left -= len(data)
            exhausted = not data
        if inflater is None:
            yield data
            data = b""
            continue
        try:
            piece = inflater.decompress(data, CHUNK)
        except DeflateError as error:
            raise ArchiveError(f"{entry.name!r} is damaged: {error}") from error
        data = inflater.unconsumed_tail
        if piece:
            yield piece
        elif exhausted and not inflater.eof:
            raise ArchiveError(f"{entry.name!r} is truncated")
        if inflater.eof and (left or data or inflater.unused_data):
            raise ArchiveError(f"{entry.name!r} has something behind its content")
