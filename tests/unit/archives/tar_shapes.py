"""Tar, block by block, written so that each field can lie. Independent of the code under test."""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
POSIX, GNU, V7 = b"ustar\x0000", b"ustar  \0", bytes(8)


def octal(value: int, width: int = 12) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def header(
    name: bytes = b"file",
    size: int | bytes = 0,
    kind: bytes = b"0",
    link: bytes = b"",
    *,
    mode: bytes = b"0000644\0",
    magic: bytes = POSIX,
    prefix: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    size_field = octal(size) if isinstance(size, int) else size.ljust(12, b"\0")
    parts = [name.ljust(100, b"\0"), mode.ljust(8, b"\0"), octal(0, 8), octal(0, 8), size_field, octal(0), b" " * 8, kind]
    parts += [link.ljust(100, b"\0"), magic, bytes(80), prefix.ljust(155, b"\0"), bytes(12)]
    block = b"".join(parts)
    assert len(block) == BLOCK, len(block)
    told = b"%06o\0 " % sum(block) if checksum is None else checksum.ljust(8, b"\0")
    return block[:148] + told + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def entry(name: bytes = b"file", data: bytes = b"", kind: bytes = b"0", link: bytes = b"", **fields: object) -> bytes:
    return header(name, len(data), kind, link, **fields) + padded(data)  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, 0, b"2", target)


def hardlink(name: bytes, target: bytes) -> bytes:
    return header(name, 0, b"1", target)


def directory(name: bytes) -> bytes:
    return header(name, 0, b"5")


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    size = len(body) + 1
    while len(b"%d" % size) + len(body) != size:
        size += 1
    return b"%d" % size + body


def pax(*records: tuple[bytes, bytes] | bytes, kind: bytes = b"x") -> bytes:
    data = b"".join(item if isinstance(item, bytes) else record(*item) for item in records)
    return entry(b"PaxHeader", data, kind)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    return entry(b"././@LongLink", name + b"\0", kind, magic=GNU)


def named(name: bytes, data: bytes = b"", kind: bytes = b"0", link: bytes = b"") -> bytes:
    """An entry whose name may have any length."""
    return entry(name, data, kind, link) if len(name) <= 100 else pax((b"path", name)) + entry(name[:99], data, kind, link)


def tar(*entries: bytes, end: bytes = END) -> bytes:
    return b"".join(entries) + end
