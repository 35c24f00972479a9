"""Zip, record by record, written so that each field can lie. Independent of the code under test."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field, replace

FILE, EXECUTABLE, DIRECTORY, SYMLINK = 0o100644, 0o100755, 0o040755, 0o120777
UTF8, STREAMED = 0x800, 0x8


@dataclass(frozen=True)
class Entry:
    """One member. ``local`` and ``central`` override fields of one of its two records; ``tail`` stands behind its content."""

    name: bytes = b"file"
    data: bytes = b""
    method: int = 8
    flags: int = UTF8
    mode: int = FILE
    system: int = 3
    packed: bytes | None = None
    crc: int | None = None
    size: int | None = None
    extra: bytes = b""
    local_extra: bytes = b""
    comment: bytes = b""
    tail: bytes = b""
    offset: int | None = None
    local: dict[str, object] = field(default_factory=dict)
    central: dict[str, object] = field(default_factory=dict)

    def body(self) -> bytes:
        if self.packed is not None:
            return self.packed
        if self.method != 8:
            return self.data
        deflater = zlib.compressobj(6, zlib.DEFLATED, -15)
        return deflater.compress(self.data) + deflater.flush()

    def numbers(self) -> tuple[int, int, int]:
        return (
            zlib.crc32(self.data) if self.crc is None else self.crc,
            len(self.body()),
            len(self.data) if self.size is None else self.size,
        )

    def local_record(self) -> bytes:
        it = replace(self, **self.local) if self.local else self  # type: ignore[arg-type]
        numbers = (0, 0, 0) if it.flags & STREAMED and not self.local else it.numbers()
        head = struct.pack("<4s5H3L2H", b"PK\x03\x04", 20, it.flags, it.method, 0, 0x21, *numbers, len(it.name), len(it.local_extra))
        return head + it.name + it.local_extra + self.body() + self.tail

    def central_record(self, offset: int) -> bytes:
        it = replace(self, **self.central) if self.central else self  # type: ignore[arg-type]
        offset = offset if it.offset is None else it.offset
        disk = 0
        head = struct.pack(
            "<4s6H3L5H2L",
            b"PK\x01\x02",
            it.system << 8 | 20,
            20,
            it.flags,
            it.method,
            0,
            0x21,
            *it.numbers(),
            len(it.name),
            len(it.extra),
            len(it.comment),
            disk,
            0,
            it.mode << 16,
            offset,
        )
        return head + it.name + it.extra + it.comment


def descriptor(entry: Entry, *, signed: bool = True, wide: bool = False) -> bytes:
    return (b"PK\x07\x08" if signed else b"") + struct.pack("<LQQ" if wide else "<LLL", *entry.numbers())


def end(count: int, size: int, start: int, *, here: int | None = None, disk: int = 0, comment: bytes = b"") -> bytes:
    here = count if here is None else here
    return struct.pack("<4s4H2LH", b"PK\x05\x06", disk, 0, here, count, size, start, len(comment)) + comment


def end64(
    count: int, size: int, start: int, at: int, *, signature: bytes = b"PK\x06\x06", located: int | None = None, disks: int = 1
) -> bytes:
    record = struct.pack("<4sQ2H2L4Q", signature, 44, 45, 45, 0, 0, count, count, size, start)
    return record + struct.pack("<4sLQL", b"PK\x06\x07", 0, at if located is None else located, disks)


def parts(*entries: Entry, before: bytes = b"") -> tuple[bytes, bytes]:
    """Local records and directory."""
    local, central = before, b""
    for entry in entries:
        central += entry.central_record(len(local))
        local += entry.local_record()
    return local, central


def archive(*entries: Entry, before: bytes = b"", comment: bytes = b"") -> bytes:
    local, central = parts(*entries, before=before)
    return local + central + end(len(entries), len(central), len(local), comment=comment)


def extra(kind: int, data: bytes) -> bytes:
    return struct.pack("<HH", kind, len(data)) + data
