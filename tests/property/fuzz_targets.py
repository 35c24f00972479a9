"""What is fuzzed: each target takes bytes from anywhere and ends with a value or with the error it promises; all else is a finding.

`fuzz.py` runs them for as long as you like, guided by coverage; `test_fuzz_corpus.py` runs what that has found on every input kept.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import shutil
import socket
import struct
import tempfile
from collections.abc import Callable
from pathlib import Path

from flame_archive_tar.tar import Tar, TarBz2, TarGz, TarXz
from flame_archive_zip.zip import Zip
from flamepy import FlameContext

from flame_host._packages.reading import Heavy, lightly
from flame_host._packages.seals import PLACE
from flame_host._packages.survey import read_tree
from flame_host._packages.unpack.tree import write_tree
from flame_host.api import ArchiveError, Archiver, ConfigError, Limits, MemberKind, SerializationError, parse_policy
from flame_host.serverless import formats, manifest
from flame_host.wire import bson, envelope, outcomes
from flame_host.worker.runtime.channel import HEADER, HEADER_SIZE, ChannelClosed, Receiver, decode

LIMITS = Limits(expanded_bytes=4 << 20, member_bytes=1 << 20, members=1000, header_bytes=1 << 20)
DECODING = (ValueError, KeyError, IndexError, TypeError, StopIteration, struct.error, RecursionError, json.JSONDecodeError)
_scratch = Path(tempfile.mkdtemp(prefix="flame-fuzz-"))
atexit.register(shutil.rmtree, _scratch, ignore_errors=True)


def frames(data: bytes) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(_without_huge_lengths(data[:64_000]))
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


def tars(data: bytes) -> None:
    kinds: tuple[tuple[bytes, Archiver], ...] = ((b"\x1f\x8b", TarGz()), (b"BZh", TarBz2()), (b"\xfd7zXZ", TarXz()))
    _archive(data, next((archiver for magic, archiver in kinds if data.startswith(magic)), Tar()))


def zips(data: bytes) -> None:
    _archive(data, Zip())


def _archive(data: bytes, archiver: Archiver) -> None:
    """Read; and of those that can be read, some are written, which must stay where it belongs."""
    with contextlib.suppress(ArchiveError):
        taken = 0
        for member in archiver.read(io.BytesIO(data), LIMITS):
            if member.kind is MemberKind.FILE and not isinstance(member.content, bytes):
                for piece in member.content:
                    taken += len(piece)
                    if taken > LIMITS.expanded_bytes:
                        return
        outer = _scratch / "outer"
        (outer / "inside").mkdir(parents=True)
        try:
            write_tree(archiver.read(io.BytesIO(data), LIMITS), outer / "inside", LIMITS, compressed_size=len(data))
        finally:
            names = [path.name for path in outer.iterdir()]
            shutil.rmtree(outer)
            assert names == ["inside"], names


def envelopes(data: bytes) -> None:
    envelope.tag_of(data)
    for read in (envelope.decode_session, envelope.decode_call, envelope.decode_outcome, bson.decode_reference):
        with contextlib.suppress(SerializationError):
            read(data)
    assert outcomes.failure_of_report(data).code
    outcomes.split_report(data.decode("utf-8", "replace"))


def manifests(data: bytes) -> None:
    path = _scratch / manifest.MANIFEST_NAME
    path.write_bytes(data)
    found = manifest._read(path)
    assert found is not None
    manifest.declared_methods(found)
    with contextlib.suppress(ConfigError):
        formats.Formats(found)
    with contextlib.suppress(ConfigError):
        parse_policy(data.decode("utf-8", "replace"))
    with contextlib.suppress(ConfigError):
        yaml = _scratch / "flame.yaml"
        yaml.write_bytes(data)
        FlameContext(yaml)


NAMES = ("pyproject.toml", "requirements.txt", "script.py", "setup.cfg", "setup.py", "PKG-INFO")


def requirements(data: bytes) -> None:
    """The first byte says of which file these are the contents."""
    tree = _scratch / "project"
    tree.mkdir(exist_ok=True)
    path = tree / NAMES[data[0] % len(NAMES) if data else 0]
    path.write_bytes(data[1:])
    before = set(_scratch.rglob("*"))
    try:
        with contextlib.suppress(ConfigError, Heavy), lightly():
            read_tree(tree)
        strange = [made for made in set(_scratch.rglob("*")) - before if not made.is_relative_to(tree / PLACE)]
        assert not strange, strange
    finally:
        shutil.rmtree(tree)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "frames": frames, "tars": tars, "zips": zips, "envelopes": envelopes, "manifests": manifests, "requirements": requirements,
}  # fmt: skip


def seeds(name: str) -> list[bytes]:
    """Sound inputs, from which a fuzzer finds the unsound ones sooner."""
    import fuzz_seeds

    made: list[bytes] = getattr(fuzz_seeds, name)()
    return made
