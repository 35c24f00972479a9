"""Tar in Zstandard, with the standard library's tar headers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from typing import IO, TYPE_CHECKING, BinaryIO, cast

from flame_host.api import ArchiveError, ArchiveLimitError, Member, MemberKind, UnsafeArchiveError

if TYPE_CHECKING:
    import tarfile

    from flame_host.api import Limits

CHUNK = 1 << 20
STEP = 4096  # bytes fed at once: Zstandard expands a block of 4 bytes to 128 KiB at most
WINDOW = 128 << 20  # memory a decompressor may need
LEVEL = 3


class ZstdTar:
    """Heavy modules are imported in the methods: a plugin must be cheap to load."""

    name = "tar.zst"
    suffixes: Sequence[str] = (".tar.zst", ".tzst")
    magic: Sequence[tuple[int, bytes]] = ((0, b"\x28\xb5\x2f\xfd"),)

    def write(self, members: Iterable[Member], target: BinaryIO) -> None:
        import tarfile

        import zstandard

        # One thread, no content size, fixed level: the same bytes everywhere, with the same version of Zstandard.
        compressor = zstandard.ZstdCompressor(level=LEVEL, write_checksum=True, write_content_size=False, threads=0)
        with compressor.stream_writer(target, closefd=False) as stream:
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="w|", format=tarfile.PAX_FORMAT, bufsize=CHUNK) as archive:
                for member in members:
                    info = _describe(member)
                    content = _Content(member) if member.kind == MemberKind.FILE else None
                    try:
                        archive.addfile(info, cast("IO[bytes] | None", content))
                    except OSError as error:
                        raise ArchiveError(f"{member.name!r} gave less than the {member.size} bytes announced") from error
                    if content is not None and content.read(1):
                        raise ArchiveError(f"{member.name!r} gave more than the {member.size} bytes announced")

    def read(self, source: BinaryIO, limits: Limits) -> Iterator[Member]:
        import tarfile

        size = source.seek(0, 2)
        source.seek(0)
        if size > limits.compressed_bytes:
            raise ArchiveLimitError("compressed-bytes", f"the archive has {size} bytes; {limits.compressed_bytes} are allowed")
        stream = _Expanded(source)
        try:
            with tarfile.open(fileobj=cast("IO[bytes]", stream), mode="r|", bufsize=CHUNK) as archive:
                yield from _members(archive)
                end = archive.offset
        except (tarfile.TarError, ValueError, OverflowError, EOFError) as error:
            raise ArchiveError(f"the archive is damaged: {error}") from error
        stream.finish(end)


def _describe(member: Member) -> tarfile.TarInfo:
    import tarfile

    kinds = {
        MemberKind.FILE: tarfile.REGTYPE,
        MemberKind.DIRECTORY: tarfile.DIRTYPE,
        MemberKind.SYMLINK: tarfile.SYMTYPE,
        MemberKind.HARDLINK: tarfile.LNKTYPE,
    }
    if member.kind not in kinds:
        raise ArchiveError(f"{member.name!r} is neither file, directory nor link and cannot be packed")
    info = tarfile.TarInfo(member.name)
    info.type = kinds[member.kind]
    info.size = member.size if member.kind == MemberKind.FILE else 0
    info.mode = 0o755 if member.executable or member.kind == MemberKind.DIRECTORY else 0o644
    info.linkname = member.link
    return info


def _members(archive: tarfile.TarFile) -> Iterator[Member]:
    import tarfile

    kinds = {
        tarfile.REGTYPE: MemberKind.FILE,
        tarfile.AREGTYPE: MemberKind.FILE,
        tarfile.DIRTYPE: MemberKind.DIRECTORY,
        tarfile.SYMTYPE: MemberKind.SYMLINK,
        tarfile.LNKTYPE: MemberKind.HARDLINK,
    }
    for info in archive:
        if archive.pax_headers.keys() - {"comment"} or info.issparse() or info.size < 0:
            raise UnsafeArchiveError("tar-trick", info.name, "a global header, a sparse file or a negative size")
        kind = kinds.get(info.type, MemberKind.OTHER)
        if kind == MemberKind.FILE:
            file = archive.extractfile(info)
            assert file is not None
            yield Member(info.name, kind, info.size, info.mode & 0o111 != 0, "", iter(partial(file.read, CHUNK), b""))
        else:
            yield Member(info.name, kind, 0, False, info.linkname)


class _Content:
    """A member's content as the file that tarfile wants."""

    def __init__(self, member: Member) -> None:
        self._pieces = iter((member.content,)) if isinstance(member.content, bytes) else member.content
        self._rest = b""

    def read(self, size: int) -> bytes:
        while len(self._rest) < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._rest += piece
        data, self._rest = self._rest[:size], self._rest[size:]
        return data


class _Expanded:
    """The expanded stream as the file that tarfile wants; notes where its last byte is that is not zero.

    tarfile takes a damaged header for the end of the archive. Behind the true end there are only zeros.
    """

    def __init__(self, source: BinaryIO) -> None:
        import zstandard

        self._source = source
        self._error = zstandard.ZstdError
        self._frame = zstandard.ZstdDecompressor(max_window_size=WINDOW).decompressobj()
        self._rest = b""
        self._position = 0
        self._last = 0

    def read(self, size: int) -> bytes:
        while len(self._rest) < size and not self._frame.eof:
            packed = self._source.read(STEP)
            if not packed:
                raise ArchiveError("the archive is truncated")
            try:
                self._rest += self._frame.decompress(packed)
            except self._error as error:
                raise ArchiveError(f"the compressed data is damaged: {error}") from error
        data, self._rest = self._rest[:size], self._rest[size:]
        if used := len(data.rstrip(b"\0")):
            self._last = self._position + used
        self._position += len(data)
        return data

    def finish(self, end: int) -> None:
        """Check what follows the last member, which ends at ``end``."""
        while self.read(CHUNK):
            if self._position > end + 2 * CHUNK:
                raise ArchiveLimitError("padding", "too many zeros follow the end of the archive")
        if self._last > end or self._frame.unused_data or self._source.read(1):
            raise UnsafeArchiveError("trailing-data", "", "something follows the end of the archive, or a header is damaged")
        if self._position < end + 1024:
            raise ArchiveError("the archive has no end mark")
