"""The central directory: what it lists must be unambiguous before a byte of content is read."""

from __future__ import annotations

from struct import Struct
from zlib import crc32

from flame_host.api import ArchiveError, ArchiveLimitError, UnsafeArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import BinaryIO

    from flame_host.api import Limits

FULL_16, FULL_32 = 0xFFFF, 0xFFFFFFFF
END = Struct("<4s4H2LH")
END64 = Struct("<4sQ2H2L4Q")
LOCATOR = Struct("<4sLQL")
CENTRAL = Struct("<4s6H3L5H2L")
ENCRYPTED = 0x0001 | 0x0040 | 0x2000
STREAMED, UNICODE = 0x0008, 0x0800
KNOWN_FLAGS = 0x0006 | STREAMED | UNICODE
STORED, DEFLATED = 0, 8
UNIX = (3, 19)  # 19 is macOS
SIGNATURES = (b"PK\x01\x02", b"PK\x03\x04", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07")


class Entry:
    """One line of the directory; ``end`` is where its local record must end."""

    __slots__ = (
        "compressed", "crc", "end", "external", "flags", "method", "name", "offset", "raw_name", "size", "system",
    )  # fmt: skip

    name: str
    raw_name: bytes
    flags: int
    method: int
    crc: int
    compressed: int
    size: int
    system: int
    external: int
    offset: int
    end: int


def read_directory(source: BinaryIO, limits: Limits) -> list[Entry]:
    total = source.seek(0, 2)
    if total > limits.compressed_bytes:
        raise ArchiveLimitError("compressed-bytes", f"the archive has {total} bytes; {limits.compressed_bytes} are allowed")
    count, size, start = _find(source, total)
    if count > limits.members:
        raise ArchiveLimitError("members", f"the archive has more than {limits.members} members")
    if size > limits.header_bytes:
        raise ArchiveLimitError("header-bytes", f"the directory needs {size} bytes; {limits.header_bytes} are allowed")
    data = _read(source, start, size)
    entries = []
    position = 0
    for _ in range(count):
        entry, position = _parse(data, position)
        entries.append(entry)
    if position != len(data):
        raise ArchiveError("the directory has another length than it says")
    _lay_out(entries, start)
    return entries


def _read(source: BinaryIO, offset: int, size: int) -> bytes:
    source.seek(offset)
    data = source.read(size)
    if len(data) != size:
        raise ArchiveError("the archive is truncated")
    return data


def _find(source: BinaryIO, total: int) -> tuple[int, int, int]:
    """The directory's entries, size and offset, from the records at the archive's end."""
    length = min(total, END.size + FULL_16)
    tail = _read(source, total - length, length)
    at = tail.rfind(b"PK\x05\x06")
    if at < 0 or at + END.size > length:
        raise ArchiveError("the archive has no end record: it is truncated, or no zip")
    _, disk, first, here, count, size, start, comment = END.unpack_from(tail, at)
    if at + END.size + comment < length:
        raise UnsafeArchiveError("trailing-data", "", "something follows the end of the archive")
    if at + END.size + comment > length:
        raise ArchiveError("the archive is truncated in its comment")
    if any(signature in tail[at + END.size :] for signature in SIGNATURES):
        raise UnsafeArchiveError("zip-in-comment", "", "the archive's comment holds parts of another archive")
    _check_unambiguous(tail, at)
    end = total - length + at
    if end >= LOCATOR.size:
        locator = _read(source, end - LOCATOR.size, LOCATOR.size)
        if locator[:4] == b"PK\x06\x07":
            end, told = _find64(source, end - LOCATOR.size, locator)
            for small, large, full in zip((disk, first, here, count, size, start), told, (FULL_16,) * 4 + (FULL_32,) * 2, strict=True):
                if small not in (large, full):
                    raise UnsafeArchiveError("end-mismatch", "", "the two end records disagree")
            disk, first, here, count, size, start = told
    if disk or first or here != count:
        raise UnsafeArchiveError("several-disks", "", "the archive is a part of one on several disks")
    if start + size > end:
        raise ArchiveError("the directory lies outside the archive")
    if start + size < end:
        raise UnsafeArchiveError("prepended-data", "", "the directory is not where the end record says it is")
    return count, size, start


def _check_unambiguous(tail: bytes, at: int) -> None:
    """No earlier end record may reach the archive's end too: a reader that scans forwards would take it."""
    other = tail.find(b"PK\x05\x06")
    while other < at:
        if other + END.size + int.from_bytes(tail[other + 20 : other + 22], "little") == len(tail):
            raise UnsafeArchiveError("end-ambiguous", "", "the archive has two end records")
        other = tail.find(b"PK\x05\x06", other + 1)


def _find64(source: BinaryIO, before: int, locator: bytes) -> tuple[int, tuple[int, ...]]:
    _, disk, at, disks = LOCATOR.unpack(locator)
    if disk or disks > 1:
        raise UnsafeArchiveError("several-disks", "", "the archive is a part of one on several disks")
    if at + END64.size != before:
        raise UnsafeArchiveError("end-mismatch", "", "the zip64 end record is not where its locator says")
    signature, length, _, _, *told = END64.unpack(_read(source, at, END64.size))
    if signature != b"PK\x06\x06" or length != END64.size - 12:
        raise ArchiveError("the zip64 end record is damaged")
    return at, tuple(told)


def _parse(data: bytes, position: int) -> tuple[Entry, int]:
    if position + CENTRAL.size > len(data):
        raise ArchiveError("the directory has fewer entries than it says")
    entry = Entry()
    (
        signature, made_by, _, entry.flags, entry.method, _, _, entry.crc, entry.compressed, entry.size,
        name_length, extra_length, comment_length, disk, _, entry.external, entry.offset,
    ) = CENTRAL.unpack_from(data, position)  # fmt: skip
    if signature != b"PK\x01\x02":
        raise ArchiveError("the directory is damaged")
    start = position + CENTRAL.size
    middle = start + name_length
    position = middle + extra_length + comment_length
    if position > len(data):
        raise ArchiveError("the directory is truncated")
    entry.raw_name = data[start:middle]
    entry.system = made_by >> 8
    extra = extra_fields(data[middle : middle + extra_length]) if extra_length else {}
    entry.name = _decode(entry, extra)
    name = entry.name
    if entry.flags & ENCRYPTED:
        raise UnsafeArchiveError("encrypted", name, "a member is encrypted")
    if entry.flags & ~KNOWN_FLAGS:
        raise UnsafeArchiveError("flags", name, f"a member has the flags {entry.flags:#x}, of which some mean what we do not know")
    if entry.method not in (STORED, DEFLATED):
        raise ArchiveError(f"{name!r} is compressed by method {entry.method}; only stored and deflated members are read")
    values = zip64_values(extra, (entry.size, entry.compressed, entry.offset), disk, name)
    entry.size, entry.compressed, entry.offset = values
    if entry.method == STORED and entry.size != entry.compressed:
        raise UnsafeArchiveError("stored-size", name, "a member is stored, and yet its two sizes differ")
    return entry, position


def zip64_values(extra: dict[int, bytes], values: tuple[int, ...], disk: int, name: str) -> tuple[int, ...]:
    """Values of a record, those that did not fit taken from its zip64 field, which must hold exactly these."""
    missing = [index for index, value in enumerate(values) if value == FULL_32]
    field = extra.get(1)
    if field is None:
        if disk:
            raise UnsafeArchiveError("several-disks", name, "a member lies on another disk")
        return values
    wanted = 8 * len(missing) + (4 if disk == FULL_16 else 0)
    if len(field) != wanted:
        raise UnsafeArchiveError("zip64-mismatch", name, "a zip64 field does not hold just what the record lacks")
    if disk not in (0, FULL_16) or (disk and int.from_bytes(field[-4:], "little")):
        raise UnsafeArchiveError("several-disks", name, "a member lies on another disk")
    told = list(values)
    for place, index in enumerate(missing):
        told[index] = int.from_bytes(field[8 * place : 8 * place + 8], "little")
        if told[index] >> 63:
            raise UnsafeArchiveError("size-overflow", name, "a size or offset is absurdly large")
    return tuple(told)


def extra_fields(data: bytes) -> dict[int, bytes]:
    fields: dict[int, bytes] = {}
    position = 0
    while position + 4 <= len(data):
        kind = int.from_bytes(data[position : position + 2], "little")
        end = position + 4 + int.from_bytes(data[position + 2 : position + 4], "little")
        if end > len(data):
            raise ArchiveError("an extra field is damaged")
        if kind in fields and kind in (0x0001, 0x7075):
            raise UnsafeArchiveError("extra-duplicate", "", "a member has two extra fields that say the same of it")
        fields[kind] = data[position + 4 : end]
        position = end
    return fields


def unicode_name(extra: dict[int, bytes], raw: bytes) -> bytes | None:
    """The name of Info-ZIP's Unicode path field; None without one, or when it is of another name."""
    field = extra.get(0x7075)
    if field is None or field[:1] != b"\x01" or field[1:5] != crc32(raw).to_bytes(4, "little"):
        return None
    return field[5:]


def _decode(entry: Entry, extra: dict[int, bytes]) -> str:
    """The name, if there is only one way to read it."""
    raw = entry.raw_name
    told = unicode_name(extra, raw) or b""
    try:
        if raw.isascii() or entry.flags & UNICODE:
            name = raw.decode()
            if told and told.decode() != name:
                raise UnsafeArchiveError("name-mismatch", name, "a member has two different names")
            return name
        if told:
            return told.decode()
        if entry.system in UNIX:
            return raw.decode()  # Info-ZIP on Unix writes the bytes as they are and says nothing
    except UnicodeDecodeError:
        pass
    raise UnsafeArchiveError("not-unicode", raw.decode("utf-8", "replace"), "a name is not Unicode, or does not say that it is")


def _lay_out(entries: list[Entry], start: int) -> None:
    """The local records must follow each other from the first byte up to the directory; the ends are checked when they are read."""
    after = start
    for entry in sorted(entries, key=lambda entry: entry.offset, reverse=True):
        if entry.offset + 30 + len(entry.raw_name) + entry.compressed > after:
            raise UnsafeArchiveError("overlap", entry.name, "a member overlaps the next one or the directory")
        entry.end = after
        after = entry.offset
    if after:
        raise UnsafeArchiveError("prepended-data", "", "something stands in front of the first member")
