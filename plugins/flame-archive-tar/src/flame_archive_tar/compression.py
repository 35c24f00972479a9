"""The streams a tar lies in: compressing for the writer, bounded decompressing for the reader.

The reader never expands more than `CHUNK` bytes at a time, so a bomb costs no memory.
"""

from __future__ import annotations

from flame_host.api import ArchiveError, ArchiveLimitError, UnsafeArchiveError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Generator, Iterator
    from typing import Any, BinaryIO

    from flame_host.api import Limits

CHUNK = 1 << 20
XZ_MEMORY = 256 << 20


class Plain:
    """No compression; also the frame of the others."""

    magic = b""

    def compress(self, data: bytes) -> bytes:
        return data

    def finish(self) -> bytes:
        return b""

    def chunks(self, source: BinaryIO, limits: Limits) -> Iterator[bytes]:
        """The expanded bytes; the whole source belongs to the archive."""
        check_size(source, limits)
        while data := source.read(CHUNK):
            yield data


class Compressed(Plain):
    """A format of one or more streams, one after the other, with nothing between or behind them."""

    damage: tuple[type[Exception], ...] = ()

    def decompressor(self) -> Any:
        """An object with ``decompress(data, max_length)``, ``eof`` and ``unused_data``."""
        raise NotImplementedError

    def chunks(self, source: BinaryIO, limits: Limits) -> Iterator[bytes]:
        check_size(source, limits)
        data = source.read(CHUNK)
        if not data.startswith(self.magic):
            raise ArchiveError("the archive does not start as its format does")
        while data:
            if not data.startswith(self.magic):
                raise UnsafeArchiveError("trailing-data", "", "something follows the end of the compressed data")
            data = yield from self._stream(source, data)
            if len(data) < len(self.magic):
                data += source.read(CHUNK)

    def _stream(self, source: BinaryIO, data: bytes) -> Generator[bytes, None, bytes]:
        """One stream; returns what was read beyond its end."""
        decompressor = self.decompressor()
        while True:
            try:
                expanded = decompressor.decompress(data, CHUNK)
            except self.damage as error:
                raise self.explain(error) from error
            if expanded:
                yield expanded
            if decompressor.eof:
                rest: bytes = decompressor.unused_data
                return rest
            # zlib hands back what it did not take; bz2 and lzma keep it, and may hold output that did not fit.
            data = getattr(decompressor, "unconsumed_tail", b"")
            if not data and getattr(decompressor, "needs_input", True):
                data = source.read(CHUNK)
                if not data and not expanded:
                    raise ArchiveError("the archive is truncated: its compressed data has no end")

    def explain(self, error: Exception) -> ArchiveError:
        return ArchiveError(f"the compressed data is damaged: {error}")


class Gzip(Compressed):
    """Gzip, written with ISA-L, which is many times faster than zlib.

    The same input must give the same bytes on every machine, and ISA-L promises that only for one version and one family of
    instructions. So the writer first compresses a sample whose result is known. Where that comes out otherwise, or ISA-L is
    missing, it stores instead of compressing: larger, but again the same bytes on all such machines.
    """

    magic = b"\x1f\x8b\x08"
    header = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"  # no name, no time, system unknown
    _agrees: bool | None = None

    def __init__(self) -> None:
        self._deflate: Any = None
        self._crc = 0
        self._size = 0

    def compress(self, data: bytes) -> bytes:
        head = b""
        if self._deflate is None:
            self._deflate = _new_deflate() if self.agrees() else _Stored()
            head = self.header
        try:
            from isal.isal_zlib import crc32
        except ImportError:
            from zlib import crc32

        self._crc = crc32(data, self._crc)
        self._size += len(data)
        compressed: bytes = self._deflate.compress(data)
        return head + compressed

    def finish(self) -> bytes:
        head = self.compress(b"") if self._deflate is None else b""
        trailer = self._crc.to_bytes(4, "little") + (self._size & 0xFFFFFFFF).to_bytes(4, "little")
        end: bytes = self._deflate.flush()
        return head + end + trailer

    @classmethod
    def agrees(cls) -> bool:
        """Whether this machine's deflate gives the bytes that all others give."""
        if Gzip._agrees is None:
            try:
                Gzip._agrees = sample_checksum() == SAMPLE_CHECKSUM
            except ImportError:
                Gzip._agrees = False
        return Gzip._agrees

    @property
    def damage(self) -> tuple[type[Exception], ...]:  # type: ignore[override]
        return (_zlib().error,)

    def decompressor(self) -> Any:
        return _zlib().decompressobj(31)


class Bzip2(Compressed):
    magic = b"BZh"
    damage = (OSError, ValueError, EOFError)

    def __init__(self) -> None:
        self._compressor: Any = None

    def compress(self, data: bytes) -> bytes:
        if self._compressor is None:
            from bz2 import BZ2Compressor

            self._compressor = BZ2Compressor(9)
        compressed: bytes = self._compressor.compress(data)
        return compressed

    def finish(self) -> bytes:
        head = self.compress(b"")
        end: bytes = self._compressor.flush()
        return head + end

    def decompressor(self) -> Any:
        from bz2 import BZ2Decompressor

        return BZ2Decompressor()


class Xz(Compressed):
    magic = b"\xfd7zXZ\x00"

    def __init__(self) -> None:
        self._compressor: Any = None

    @property
    def damage(self) -> tuple[type[Exception], ...]:  # type: ignore[override]
        from lzma import LZMAError

        return (LZMAError, EOFError)

    def explain(self, error: Exception) -> ArchiveError:
        if "emory" in str(error):
            return ArchiveLimitError("memory", f"decompressing needs more than {XZ_MEMORY >> 20} MiB of memory")
        return super().explain(error)

    def compress(self, data: bytes) -> bytes:
        if self._compressor is None:
            from lzma import CHECK_CRC64, LZMACompressor

            self._compressor = LZMACompressor(check=CHECK_CRC64, preset=6)
        compressed: bytes = self._compressor.compress(data)
        return compressed

    def finish(self) -> bytes:
        head = self.compress(b"")
        end: bytes = self._compressor.flush()
        return head + end

    def decompressor(self) -> Any:
        from lzma import FORMAT_XZ, LZMADecompressor

        return LZMADecompressor(FORMAT_XZ, memlimit=XZ_MEMORY)


class _Stored:
    """Deflate without compression: the one encoding that depends on nothing but its input."""

    def compress(self, data: bytes) -> bytes:
        return b"".join(_block(data[start : start + 0xFFFF], 0) for start in range(0, len(data), 0xFFFF))

    def flush(self) -> bytes:
        return _block(b"", 1)


def _block(data: bytes, final: int) -> bytes:
    size = len(data)
    return bytes((final,)) + size.to_bytes(2, "little") + (size ^ 0xFFFF).to_bytes(2, "little") + data


def _zlib() -> Any:
    try:
        from isal import isal_zlib

        return isal_zlib
    except ImportError:
        import zlib

        return zlib


def _new_deflate() -> Any:
    from isal import isal_zlib

    return isal_zlib.compressobj(2, isal_zlib.DEFLATED, -15)


def sample_checksum() -> int:
    """CRC-32 of the deflated sample: text-like and noisy parts, made by a linear congruence."""
    from zlib import crc32

    state, words = 1, []
    for _ in range(12_000):
        state = (state * 1103515245 + 12345) & 0x7FFFFFFF
        words.append(b"%d" % (state >> 16 & 0x3F) if state & 0x1000 else state.to_bytes(4, "little"))
    deflate = _new_deflate()
    compressed: bytes = deflate.compress(b" ".join(words)) + deflate.flush()
    return crc32(compressed)


SAMPLE_CHECKSUM = 3937336272


def check_size(source: BinaryIO, limits: Limits) -> None:
    size = source.seek(0, 2)
    source.seek(0)
    if size > limits.compressed_bytes:
        raise ArchiveLimitError("compressed-bytes", f"the archive has {size} bytes; {limits.compressed_bytes} are allowed")
