"""Fuzz targets: the frame parser and the archive readers, on bytes that are nearly right.

``python tests/property/fuzz_readers.py [seconds] [seed]`` runs them for as long as you like; the tests run them for a moment.
Whatever comes in, a target ends with a value or with one of the errors it promises; anything else is a finding.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import random
import socket
import struct
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

from flame_host._packages.unpack.tree import write_tree
from flame_host._plugins.catalog import Catalog
from flame_host.api import FlameError, Limits
from flame_host.worker.runtime.channel import CALL, HEADER, HEADER_SIZE, RESULT, ChannelClosed, Receiver, decode, encode

LIMITS = Limits(expanded_bytes=4 << 20, member_bytes=1 << 20, members=1000, header_bytes=1 << 20)
DECODING = (ValueError, KeyError, IndexError, TypeError, StopIteration, struct.error, RecursionError, json.JSONDecodeError)


def mutated(data: bytes, chance: random.Random) -> bytes:
    """A few bits, bytes or pieces changed."""
    content = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        place = chance.randrange(len(content) + 1)
        how = chance.randrange(4)
        if how == 0 and place < len(content):
            content[place] ^= 1 << chance.randrange(8)
        elif how == 1:
            content[place:place] = chance.randbytes(chance.randint(1, 8))
        elif how == 2:
            del content[place : place + chance.randint(1, 64)]
        elif place < len(content):
            content[place : place + 4] = chance.choice([b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"])
    return bytes(content)


def fuzz_frames(chance: random.Random) -> None:
    frames = [encode(chance.choice([CALL, RESULT]), n, chance.randbytes(20), [b"buffer"] * (n % 3), (), b"method")[0] for n in range(5)]
    data = _without_huge_lengths(mutated(b"".join(frames), chance))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(data)
        theirs.close()
        receiver = Receiver(ours)
        with contextlib.suppress(ChannelClosed, IndexError, MemoryError, OSError):
            while True:
                for frame in receiver.receive():
                    with contextlib.suppress(*DECODING):
                        decode(frame)
        receiver.close()


def _without_huge_lengths(data: bytes) -> bytes:
    """Cut off before a frame over 1 MiB: a receiver makes room for a whole frame at once, up to 4 GiB, because it trusts its peer."""
    place = 0
    while place + HEADER_SIZE <= len(data):
        length = HEADER.unpack_from(data, place)[4]
        if length > 1 << 20:
            return data[:place]
        place += HEADER_SIZE + length
    return data


def _tar() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w:gz", format=tarfile.PAX_FORMAT) as tar:
        for name in ("a.py", "package/b.py", "é" * 60 + "/c.py"):
            member = tarfile.TarInfo(name)
            member.size = 100
            tar.addfile(member, io.BytesIO(bytes(100)))
    return stream.getvalue()


def _zip() -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("a.py", "package/b.py", "é/c.py"):
            archive.writestr(name, bytes(100))
    return stream.getvalue()


CATALOG = Catalog()
ARCHIVES = {"tar.gz": _tar(), "zip": _zip()}
ARCHIVES["tar"] = gzip.decompress(ARCHIVES["tar.gz"])


def fuzz_archives(chance: random.Random) -> None:
    name = chance.choice(sorted(ARCHIVES))
    archiver = CATALOG.archiver(name)
    with tempfile.TemporaryDirectory() as directory:
        archive, inside = Path(directory, "archive"), Path(directory, "inside")
        archive.write_bytes(mutated(ARCHIVES[name], chance))
        inside.mkdir()
        with contextlib.suppress(FlameError):
            with archive.open("rb") as source:
                write_tree(archiver.read(source, LIMITS), inside, LIMITS, compressed_size=archive.stat().st_size)
        assert sorted(path.name for path in Path(directory).iterdir()) == ["archive", "inside"]


TARGETS: tuple[Callable[[random.Random], None], ...] = (fuzz_frames, fuzz_archives)


def run(target: Callable[[random.Random], None], seconds: float, seed: int = 0) -> int:
    """Until the time is up; returns how many inputs were tried. A finding carries the number of its input as a note."""
    deadline = time.monotonic() + seconds
    tried = 0
    while time.monotonic() < deadline:
        try:
            target(random.Random(seed * 1_000_000 + tried))
        except BaseException as error:
            raise AssertionError(f"{target.__name__}, seed {seed}, input {tried}: {type(error).__name__}: {error}") from error
        tried += 1
    return tried


if __name__ == "__main__":
    given = [*sys.argv[1:], "60", "0"][: max(2, len(sys.argv) - 1)] if len(sys.argv) != 2 else [sys.argv[1], "0"]
    for each in TARGETS:
        print(each.__name__, run(each, float(given[0]), int(given[1])), "inputs")
