"""One object in one file: a signed header, the data, and page-aligned buffers that readers map.

::

    "FLAMEOB1"  8 bytes
    signature   32 bytes, HMAC-SHA-256 of all header bytes that follow, padding included
    length      4 bytes, big-endian: bytes of the header
    header      JSON, padded with spaces: key, version, format, time, and [offset, length, SHA-256] of the data and of each buffer
    data        directly behind
    buffers     each at a multiple of 4096

The header vouches for every byte behind it, and the signature for the header.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import mmap
import os
import time
from dataclasses import dataclass
from typing import Any, BinaryIO

from flame_host.api import Buffer, CacheError, Payload, buffer_view

_MAGIC = b"FLAMEOB1"
_FIXED = len(_MAGIC) + 32 + 4
_PAGE = 4096
_VERSION_DIGITS = 20
_HEADER_LIMIT = 16 << 20


@dataclass(frozen=True)
class Header:
    """What a file says about itself, once its signature was found good.

    Attributes:
        made: when, in nanoseconds: tells a file that was put back from one that was written.
    """

    key: str
    version: int
    format: str
    parts: tuple[tuple[int, int, str], ...]
    made: int = 0

    @property
    def size(self) -> int:
        return sum(length for _, length, _ in self.parts)

    @property
    def digest(self) -> str:
        return hashlib.sha256("".join(digest for _, _, digest in self.parts).encode()).hexdigest()


class Draft:
    """A file being written: the contents first, without a lock; the version, which needs one, last."""

    def __init__(self, file: BinaryIO, key: str, payload: Payload) -> None:
        """Write everything but the header."""
        self._file = file
        views = [memoryview(payload.data), *(_bytes_of(buffer) for buffer in payload.buffers)]
        room = len(_encode(key, 0, payload.format, [(1 << 62, 1 << 62, "0" * 64)] * len(views), 0)) + 2 * _VERSION_DIGITS
        self._length = room
        position, parts = _FIXED + room, []
        for index, view in enumerate(views):
            if index:
                position = -(-position // _PAGE) * _PAGE
            file.seek(position)
            file.write(view)
            parts.append((position, view.nbytes, hashlib.sha256(view).hexdigest()))
            position += view.nbytes
        # A trailing empty buffer leaves a hole that was never written: give the file its whole length.
        file.truncate(position)
        self._key, self._format, self._parts = key, payload.format, tuple(parts)

    def finish(self, version: int, secret: bytes, after: int = 0) -> Header:
        """Args:
        after: when the version before this one was made; the clock may have been set back since.
        """
        made = max(time.time_ns(), after + 1)
        text = _encode(self._key, version, self._format, self._parts, made).ljust(self._length)
        signed = self._length.to_bytes(4, "big") + text
        self._file.seek(0)
        self._file.write(_MAGIC + hmac.digest(secret, signed, "sha256") + signed)
        self._file.flush()
        return Header(self._key, version, self._format, self._parts, made)


def read_header(file: BinaryIO, key: str, secret: bytes) -> Header:
    """The header, authenticated; nothing of a file is believed before its signature."""
    fixed = file.read(_FIXED)
    length = int.from_bytes(fixed[-4:], "big")
    if len(fixed) != _FIXED or not fixed.startswith(_MAGIC) or length > _HEADER_LIMIT:
        raise CacheError(f"the stored object {key} is damaged: its file does not begin as it should")
    text = file.read(length)
    if not hmac.compare_digest(hmac.digest(secret, fixed[-4:] + text, "sha256"), fixed[len(_MAGIC) : -4]):
        raise CacheError(
            f"the stored object {key} does not carry this user's signature",
            hint="it is damaged, or was written with another key: give all who share the directory the same FLAME_CACHE_KEY_FILE",
        )
    found: dict[str, Any] = json.loads(text)
    if found["key"] != key:
        raise CacheError(f"the file of the object {key} holds {found['key']}")
    return Header(key, found["version"], found["format"], tuple((part[0], part[1], part[2]) for part in found["parts"]), found["made"])


def read_payload(file: BinaryIO, header: Header, *, verify: bool) -> Payload:
    """The contents; buffers are read-only views of a mapping that lives as long as they do."""
    if os.fstat(file.fileno()).st_size < max(offset + length for offset, length, _ in header.parts):
        raise CacheError(f"the stored object {header.key} is damaged: its file was cut off")
    offset, length, _ = header.parts[0]
    file.seek(offset)
    data = file.read(length)
    buffers: list[Buffer] = []
    if len(header.parts) > 1:
        mapped = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
        buffers = [mapped[start : start + size] for start, size, _ in header.parts[1:]]
    if verify:
        for content, (_, _, expected) in zip((data, *buffers), header.parts, strict=True):
            if hashlib.sha256(buffer_view(content)).hexdigest() != expected:
                raise CacheError(f"the stored object {header.key} is damaged: its contents do not match their digest")
    return Payload(header.format, data, tuple(buffers))


def _bytes_of(buffer: Buffer) -> memoryview:
    view = buffer_view(buffer)
    return view if view.nbytes == 0 else view.cast("B")


def _encode(key: str, version: int, format: str, parts: Any, made: int) -> bytes:
    return json.dumps({"key": key, "version": version, "format": format, "parts": list(parts), "made": made}).encode()
