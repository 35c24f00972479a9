"""Writing tar: USTAR headers, and PAX records for what they cannot hold.

Nothing of the machine or the moment goes in: owner 0, time 0, modes 0644 and 0755. Whole-second times also spare two blocks a file.
"""

from __future__ import annotations

from flame_host.api import ArchiveError, MemberKind

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from flame_host.api import Member

BLOCK = 512
RECORD = 20 * BLOCK
BATCH = 256 << 10
LARGEST_SIZE = 0o77777777777
TYPES = {MemberKind.FILE: b"0", MemberKind.HARDLINK: b"1", MemberKind.SYMLINK: b"2", MemberKind.DIRECTORY: b"5"}


def write_members(members: Iterable[Member], put: Callable[[bytes], None]) -> None:
    """Hand the archive to ``put`` in pieces of one size: what a compressor makes of a stream may depend on how it is cut."""
    batch = bytearray()
    total = 0
    for member in members:
        for piece in _member(member):
            total += len(piece)
            batch += piece
            if len(batch) >= BATCH:
                whole = len(batch) - len(batch) % BATCH
                with memoryview(batch) as view:
                    for start in range(0, whole, BATCH):
                        put(bytes(view[start : start + BATCH]))
                del batch[:whole]
    end = 2 * BLOCK
    batch += bytes(end + -(total + end) % RECORD)
    for start in range(0, len(batch), BATCH):
        put(bytes(batch[start : start + BATCH]))


def _member(member: Member) -> Iterable[bytes]:
    yield _headers(member)
    if member.kind != MemberKind.FILE:
        return
    if isinstance(member.content, bytes):
        given = len(member.content)
        yield member.content
    else:
        given = 0
        for piece in member.content:
            given += len(piece)
            yield piece
    if given != member.size:
        raise ArchiveError(f"{member.name!r} was announced with {member.size} bytes, and {given} came: did it change while it was packed?")
    if given % BLOCK:
        yield bytes(-given % BLOCK)


def _headers(member: Member) -> bytes:
    if member.kind not in TYPES:
        raise ArchiveError(f"{member.name!r} is neither file, directory nor link and cannot be packed")
    directory = member.kind == MemberKind.DIRECTORY
    name = member.name.rstrip("/") + "/" if directory else member.name
    size = member.size if member.kind == MemberKind.FILE else 0
    records = b""
    short_name, short_link = name.encode(), member.link.encode()
    if len(short_name) > 100 or not name.isascii():
        records += _record("path", name)
        short_name = _abridge(short_name)
    if len(short_link) > 100 or not member.link.isascii():
        records += _record("linkpath", member.link)
        short_link = _abridge(short_link)
    short_size = size
    if size > LARGEST_SIZE:
        records += _record("size", str(size))
        short_size = 0
    mode = 0o755 if directory or member.executable else 0o644
    header = _block(short_name, mode, short_size, TYPES[member.kind], short_link)
    if not records:
        return header
    return _block(b"././@PaxHeader", 0o644, len(records), b"x", b"") + records + bytes(-len(records) % BLOCK) + header


def _block(name: bytes, mode: int, size: int, kind: bytes, link: bytes) -> bytes:
    before = b"%s%07o\x000000000\x000000000\x00%011o\x0000000000000\x00" % (name.ljust(100, b"\0"), mode, size)
    after = kind + link.ljust(100, b"\0") + b"ustar\x0000" + bytes(64) + b"0000000\x000000000\x00" + bytes(167)
    return b"%s%06o\x00 %s" % (before, sum(before) + sum(after) + 8 * 32, after)


def _record(key: str, value: str) -> bytes:
    """``"<length> <key>=<value>\\n"``, the length counting its own digits."""
    body = f" {key}={value}\n".encode()
    size = len(body) + 1
    while len(str(size)) + len(body) != size:
        size += 1
    return str(size).encode() + body


def _abridge(name: bytes) -> bytes:
    """What a reader without PAX sees."""
    return bytes(byte if 32 <= byte < 127 else 95 for byte in name[:100])
