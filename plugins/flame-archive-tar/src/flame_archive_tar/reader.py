"""Reading tar, strictly: what two readers could understand differently is refused.

Understood are v7, USTAR, PAX and GNU (long names, large sizes). The standard library's reader is not used: it forgives damage,
it loops on negative sizes (CVE-2025-8194), and it costs 100 µs a member.
"""

from __future__ import annotations

from itertools import chain
from zlib import adler32

from flame_archive_tar.extended import parse_global, parse_long_name, parse_records
from flame_host.api import ArchiveError, ArchiveLimitError, Member, MemberKind, UnsafeArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from flame_host.api import Limits

BLOCK = 512
WHOLE = 1 << 20  # content up to this size is handed over in one piece
PADDING = 1 << 20  # zero bytes allowed behind the end mark
LARGEST_OCTAL = 0o77777777777
ZEROS = bytes(BLOCK)
OCTAL = b"01234567"
FREE_HEADER_BYTES = 1 << 20
EXTENDED_BYTES = 1 << 20  # of one header; a name may have a thousandth of that
FILE, DIRECTORY, SYMLINK, HARDLINK, OTHER = (
    MemberKind.FILE, MemberKind.DIRECTORY, MemberKind.SYMLINK, MemberKind.HARDLINK, MemberKind.OTHER,
)  # fmt: skip
KINDS = {b"0": FILE, b"\0": FILE, b"1": HARDLINK, b"2": SYMLINK, b"5": DIRECTORY}


class Blocks:
    """The expanded archive as a buffer that is filled on demand."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._buffer = b""
        self._position = 0

    def take(self, size: int) -> bytes:
        """Exactly so many bytes."""
        end = self._position + size
        if end > len(self._buffer):
            self._fill(size)
            end = size
        data = self._buffer[self._position : end]
        self._position = end
        return data

    def _fill(self, size: int) -> None:
        parts = [self._buffer[self._position :]]
        have = len(parts[0])
        while have < size:
            part = next(self._chunks, b"")
            if not part:
                raise ArchiveError("the archive is truncated")
            parts.append(part)
            have += len(part)
        self._buffer = b"".join(parts)
        self._position = 0

    def pieces(self, size: int) -> Iterator[bytes]:
        """Large content, a piece at a time; the padding behind it included in what is taken, not in what is given."""
        left = size
        while left:
            if self._position == len(self._buffer):
                self._buffer, self._position = next(self._chunks, b""), 0
                if not self._buffer:
                    raise ArchiveError("the archive is truncated")
            piece = self._buffer[self._position : self._position + left]
            self._position += len(piece)
            left -= len(piece)
            yield piece
        self.take(-size % BLOCK)

    def end(self) -> None:
        """Behind the end mark stand zeros, and not many. Taking all of them also makes the compression check its own end."""
        padding = 0
        for rest in chain((self._buffer[self._position :],), self._chunks):
            padding += len(rest)
            if rest.count(0) != len(rest):
                raise UnsafeArchiveError("trailing-data", "", "something follows the end of the archive")
            if padding > PADDING:
                raise ArchiveLimitError("padding", "too many zeros follow the end of the archive")


def read_members(chunks: Iterator[bytes], limits: Limits, compressed_size: int) -> Iterator[Member]:
    """Args:
    compressed_size: bytes of the archive. Headers may take so many times as much and no more: they are kept in memory.
    """
    blocks = Blocks(chunks)
    take = blocks.take
    header_bytes = 0
    header_limit = min(limits.header_bytes, FREE_HEADER_BYTES + limits.ratio * compressed_size)
    extended: dict[str, str] = {}
    while True:
        block = take(BLOCK)
        if block == ZEROS:
            if extended:
                raise ArchiveError("the archive ends between a member's extended header and the member")
            if take(BLOCK) != ZEROS:
                raise UnsafeArchiveError("trailing-data", "", "a member follows the end of the archive")
            blocks.end()
            return
        name, kind, size, mode, link, flavour = parse_header(block)
        header_bytes += BLOCK
        if flavour:
            header_bytes += size
        if header_bytes > header_limit:
            raise ArchiveLimitError("header-bytes", f"headers need more than {header_limit} bytes")
        if flavour == b"V":
            if size or extended:
                raise UnsafeArchiveError("volume-label", name, "a volume label has content, or a header of its own")
            continue
        if flavour:
            if size > EXTENDED_BYTES:
                raise ArchiveLimitError("header-bytes", f"one extended header has {size} bytes; {EXTENDED_BYTES} are allowed")
            data = take(size)
            take(-size % BLOCK)
            _extend(extended, flavour, data)
            continue
        if extended:
            if kind == DIRECTORY and "path" in extended and block[156] == 0:
                # Of old, only the slash says that it is a directory; some readers look for it in one name, some in the other.
                raise UnsafeArchiveError("kind-mismatch", name, "an extended header renames what is a directory by its name alone")
            name, link, size = _apply(extended, name, link, size)
            extended = {}
        if kind != FILE:
            if size:
                raise UnsafeArchiveError("size-of-link", name, "a member that is no file has content")
            yield Member(name, kind, 0, False, link)
        elif name[-1:] == "/":
            raise UnsafeArchiveError("slash-at-end", name, "a file's name ends like a directory's")
        elif size <= WHOLE:
            yield Member(name, kind, size, mode & 0o111 != 0, "", take(size + -size % BLOCK)[:size])
        else:
            pieces = blocks.pieces(size)
            yield Member(name, kind, size, mode & 0o111 != 0, "", pieces)
            if next(pieces, None) is not None:
                raise ArchiveError(f"the content of {name!r} was not taken")


def _extend(extended: dict[str, str], flavour: bytes, data: bytes) -> None:
    """Note what an extended header says of the member that follows."""
    if flavour == b"g":
        if extended:
            raise UnsafeArchiveError("extended-header-order", "", "a global header stands between a member's header and the member")
        parse_global(data)
        return
    pax = flavour == b"x"
    found = parse_records(data) if pax else {"path" if flavour == b"L" else "linkpath": parse_long_name(data)}
    if (extended and (pax or "pax" in extended)) or extended.keys() & found.keys():
        raise UnsafeArchiveError("extended-header-twice", "", "two extended headers speak of one member")
    extended.update(found)
    if pax:
        extended["pax"] = ""


def _apply(extended: dict[str, str], name: str, link: str, size: int) -> tuple[str, str, int]:
    name = extended.get("path", name)
    link = extended.get("linkpath", link)
    if "size" in extended:
        told = int(extended["size"])
        # The only honest use is a size that the header's field cannot hold, which is then 0.
        if told != size and not (told > LARGEST_OCTAL and size == 0):
            raise UnsafeArchiveError("size-override", name, f"the header says {size} bytes, its extension {told}")
        size = told
    return name, link, size


def parse_header(block: bytes) -> tuple[str, MemberKind, int, int, str, bytes]:
    """Name, kind, size, mode, link, and the type flag of an extended header (else empty)."""
    check_sum(block)
    flag = block[156:157]
    name = text_field(block[:100])
    magic = block[257:265]
    if magic == b"ustar\x0000":
        if block[345]:
            name = f"{text_field(block[345:500])}/{name}"
    elif magic not in (b"ustar  \0", b"\0\0\0\0\0\0\0\0"):
        raise ArchiveError("a header is of no known flavour of tar")
    size = number(block[124:136], name)
    kind = KINDS.get(flag, OTHER)
    if kind is FILE:
        if name[-1:] == "/" and flag == magic[:1] == b"\0":
            kind = DIRECTORY  # the only way of v7
        mode = block[100:108]
        return name, kind, size, 0o644 if mode == b"0000644\0" else number(mode, name), "", b""
    if flag == b"S":
        raise UnsafeArchiveError("sparse", name, "a sparse file")
    if flag in b"xgLKV":
        return name, kind, size, 0, "", flag
    link = text_field(block[157:257]) if kind is not DIRECTORY else ""
    return name, kind, 0 if kind is OTHER else size, 0, link, b""


def check_sum(block: bytes) -> None:
    digits = block[148:156].rstrip(b"\0 ").lstrip(b" ")
    told = int(digits, 8) if digits and not digits.translate(None, OCTAL) else -1
    # The low half of an Adler-32 is 1 + the sum of the bytes, modulo 65521, which 256 bytes cannot reach: six times faster than sum().
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    if told != total - sum(block[148:156]) + 8 * 32:
        raise ArchiveError("a header's checksum is wrong: the archive is damaged, or no tar")


def number(field: bytes, name: str) -> int:
    """An octal number, or a GNU base-256 one."""
    if field[0] & 0x80:
        if field[0] != 0x80:
            raise UnsafeArchiveError("negative-size", name, "a number in a header is negative or absurdly large")
        value = int.from_bytes(field[1:], "big")
        if value >> 63:
            raise UnsafeArchiveError("size-overflow", name, "a number in a header is absurdly large")
        return value
    digits = field.rstrip(b"\0 ").lstrip(b" ")  # a reader that stops at the first NUL must find what we find
    if not digits:
        return 0
    if digits[:1] == b"-":
        raise UnsafeArchiveError("negative-size", name, "a number in a header is negative")
    if not digits.translate(None, OCTAL):
        return int(digits, 8)
    raise ArchiveError(f"a number in the header of {name!r} is not octal")


def text_field(field: bytes) -> str:
    text = field.rstrip(b"\0")
    if b"\0" in text:
        raise UnsafeArchiveError("name-after-nul", text.decode("utf-8", "replace"), "something is hidden behind the end of a name")
    return text.decode("utf-8", "surrogateescape")  # judged by the caller; an extended header may still give the true name
