"""The archive made of a project's files.

The project itself is only read. Archives are kept in the host's directory under ``packs/``, where an unchanged project finds the
archive of the last time without reading a single file.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import stat
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_host.api import Archiver, Member, MemberKind, PackageError, whole_file
from flamepy._package.listing import Listing
from flamepy._package.project import checked_root
from flamepy._package.selection import Walk, link_inside, listed

_WHOLE = 4 << 20  # bytes up to which a file is read at once
_KEPT = 14 * 24 * 3600 * 1_000_000_000  # nanoseconds an archive is kept after its last use
_SETTLED = 2_000_000_000  # nanoseconds after which a file's time stamp is trusted to tell a later change


@dataclass(frozen=True)
class Pack:
    """A finished archive.

    Attributes:
        fresh: made just now; otherwise it was there from an earlier time.
    """

    path: Path
    digest: str
    size: int
    files: int
    fresh: bool


def members(root: Path, files: Iterable[str]) -> Iterator[Member]:
    """The files as an archiver takes them."""
    for name in files:
        path = root / name
        if path.is_symlink():
            target = link_inside(root, path)
            if target is not None:
                yield Member(name, MemberKind.SYMLINK, link=target)
                continue
        status = path.stat()
        executable = bool(status.st_mode & 0o111)
        if status.st_size <= _WHOLE:
            content = path.read_bytes()
            yield Member(name, MemberKind.FILE, len(content), executable, content=content)
        else:
            yield Member(name, MemberKind.FILE, status.st_size, executable, content=_pieces(path, status.st_size))


def pack(root: str | Path, archiver: Archiver, cellar: Path, *, excludes: Iterable[str] = (), includes: Iterable[str] = ()) -> Pack:
    """Make the archive of a project, or find the one that was made of it before.

    Args:
        cellar: directory archives are kept in.
    """
    project = checked_root(root)
    walk = Walk(project, tuple(excludes), tuple(includes), never=cellar.parent)
    return pack_files(project, listed(walk, Listing(cellar, project, [*excludes, "/", *includes])), archiver, cellar)


def pack_files(base: Path, files: Sequence[str], archiver: Archiver, cellar: Path, extra: Mapping[str, bytes] | None = None) -> Pack:
    """The archive of files by their names below ``base``.

    Args:
        extra: further members by name, with their content.
    """
    extra = extra or {}
    started = time.time_ns()
    key, newest = quick_key(base, files, archiver.name, extra)
    cellar.mkdir(mode=0o700, parents=True, exist_ok=True)
    index = cellar / f"{key}.json"
    known = _known(index, cellar)
    if known is not None:
        os.utime(known[0])
        return Pack(known[0], known[1], known[2], len(files), fresh=False)
    added = [Member(name, MemberKind.FILE, len(content), content=content) for name, content in extra.items()]
    part = cellar / f".{os.getpid()}-{started}.part"
    try:
        with whole_file(part) as target:
            archiver.write(itertools.chain(added, members(base, files)), target)
        digest = _digest(part)
        archive = cellar / f"{digest}{archiver.suffixes[0]}"
        size = part.stat().st_size
        os.replace(part, archive)
    finally:
        part.unlink(missing_ok=True)
    if newest < started - _SETTLED:  # a file this young could change again without its time stamp telling
        entry = cellar / f".{os.getpid()}-{started}.json"
        entry.write_text(json.dumps({"archive": archive.name, "digest": digest, "size": size}))
        os.replace(entry, index)
    _sweep(cellar, started)
    return Pack(archive, digest, size, len(files), fresh=True)


def quick_key(root: Path, files: Sequence[str], form: str, extra: Mapping[str, bytes]) -> tuple[str, int]:
    """A key of names, sizes and times, which change when contents do; and the newest time."""
    hasher = hashlib.sha256(f"2 {form} {root} {sorted(extra.items())}\n".encode())
    newest = 0
    for name in files:
        status = os.lstat(root / name)
        link = os.readlink(root / name) if stat.S_ISLNK(status.st_mode) else ""
        newest = max(newest, status.st_mtime_ns, status.st_ctime_ns)
        facts = f"{name}\0{status.st_mode}\0{status.st_size}\0{status.st_mtime_ns}\0{status.st_ctime_ns}\0{status.st_ino}\0{link}\n"
        hasher.update(facts.encode("utf-8", "surrogateescape"))
    return hasher.hexdigest(), newest


def _known(index: Path, cellar: Path) -> tuple[Path, str, int] | None:
    try:
        entry = json.loads(index.read_text())
        archive = cellar / entry["archive"]
        return (archive, entry["digest"], entry["size"]) if archive.stat().st_size == entry["size"] else None
    except (OSError, ValueError, KeyError):
        return None


def _sweep(cellar: Path, now: int) -> None:
    """Remove what nobody has used for long, half-made files too."""
    for entry in os.scandir(cellar):
        with contextlib.suppress(OSError):  # another program is quicker
            if entry.is_file(follow_symlinks=False) and entry.stat().st_mtime_ns < now - _KEPT:
                os.unlink(entry)


def _pieces(path: Path, size: int) -> Iterator[bytes]:
    left = size
    with path.open("rb") as source:
        while left:
            piece = source.read(min(1 << 20, left))
            if not piece:
                raise PackageError(f"{path} became shorter while it was packed", hint="do not write to the project while it is packed")
            left -= len(piece)
            yield piece


def _digest(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as source:
        while piece := source.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()
