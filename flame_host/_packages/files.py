"""Packages of this machine as lists of files, each kept once by its content: an edit copies what was edited.

``<root>/files/<ab>/<sha256>`` holds contents, read-only; a package is a list of names and digests, and its own digest is that of the
list. In a tree small files are copies. Large ones share blocks where the file system can, and are links to the one content elsewhere.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_host._packages.listings import check_listing
from flame_host._private import make_private
from flame_host.api import Limits, Member, MemberKind, PackageError, PackageRef

FORMAT = "files"
SUFFIX = ".files"
LARGE = 1 << 20
"""Bytes from which a file is not copied where sharing is possible."""

_LEAVE_OUT = "leave it out: [tool.flame] exclude"
_AGAIN = "run the program again: it is packed anew"
_FICLONE = 0x40049409
_SETTLED = 2_000_000_000  # nanoseconds; a file this young could change again without its time stamp telling


class FileStore:
    """Contents and lists of files below a host's root. Safe to use from many processes at once: contents appear by one rename."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self._contents = root / "files"
        self._lists = root / "packs"
        self._limits = limits

    # ------------------------------------------------------------------------------------------------ packing

    def keep(self, base: Path, names: Sequence[str], links: Mapping[str, str], extra: Mapping[str, bytes]) -> PackageRef:
        """Keep the contents of files, and the list as a package.

        Args:
            names: of files below ``base``. links: of symbolic links among them, with what they lead to. extra: files by content.
        """
        check_listing([*names, *extra], links, self._limits)
        make_private(self._lists)
        make_private(self._contents)
        self._drop_left_behind()
        memory = self._lists / f"known-{hashlib.sha256(str(base).encode('utf-8', 'surrogateescape')).hexdigest()[:24]}.json"
        known, now = _read(memory), {}
        entries: list[list[Any]] = []
        for name in names:
            if name in links:
                continue
            path = base / name
            status = path.stat()
            if status.st_size > self._limits.member_bytes:
                raise PackageError(
                    f"{name} has {status.st_size} bytes; {self._limits.member_bytes} are allowed", hint="leave it out with exclude"
                )
            facts = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
            before = known.get(name)
            digest = before[-1] if before is not None and before[:-1] == facts and self._is_intact(before[-1], status.st_size) else ""
            digest = digest or self._add(path)
            if max(status.st_mtime_ns, status.st_ctime_ns) < _now() - _SETTLED:
                now[name] = [*facts, digest]
            entries.append([name, status.st_size, bool(status.st_mode & 0o111), digest])
        entries += [[name, len(content), False, self.add(content)] for name, content in extra.items()]
        if now != known:
            _write(memory, json.dumps(now).encode())
        return self._listed(entries, links)

    def _listed(self, entries: list[list[Any]], links: Mapping[str, str]) -> PackageRef:
        total = sum(entry[1] for entry in entries)
        if total > self._limits.expanded_bytes:
            raise PackageError(
                f"the files have {total} bytes; {self._limits.expanded_bytes} are allowed", hint="leave data out with exclude"
            )
        content = json.dumps({"version": 1, "files": sorted(entries), "links": sorted(links.items())}).encode()
        digest = hashlib.sha256(content).hexdigest()
        path = self._lists / f"{digest}{SUFFIX}"
        if path.is_file():
            os.utime(path)
        else:
            _write(path, content)
        return PackageRef(path.as_uri(), digest, len(content), FORMAT)

    def _drop_left_behind(self) -> None:
        """Halves of contents whose writer was killed."""
        for path in self._contents.glob(".*.*"):
            with contextlib.suppress(OSError, ValueError):
                if not Path("/proc", str(int(path.name.split(".")[1]))).exists():
                    path.unlink()

    def place(self, digest: str) -> Path:
        """Where a content stands."""
        return self._contents / digest[:2] / digest

    def _is_intact(self, digest: str, size: int) -> bool:
        """Small contents are read whenever they are used; of large ones the status is compared, which a change would leave a trace in."""
        path = self.place(digest)
        try:
            status = path.stat()
        except OSError:
            return False
        if size < LARGE:
            return status.st_size == size
        return bool(_read(path.with_suffix(".json")).get("status") == _status(status))

    def _add(self, path: Path) -> str:
        """Copy a file in; the content is named by what was copied, whatever happens to the file meanwhile."""
        part = self._contents / f".{os.getpid()}.{uuid.uuid4().hex}"
        try:
            size = path.stat().st_size
            with path.open("rb") as source, part.open("xb") as target:
                digest = _cloned(source, target) if size >= LARGE else ""
                if not digest:
                    hasher = hashlib.sha256()
                    while block := source.read(1 << 20):
                        hasher.update(block)
                        target.write(block)
                    digest = hasher.hexdigest()
            self._finish(part, digest)
        finally:
            part.unlink(missing_ok=True)
        return digest

    def add(self, content: bytes) -> str:
        """Keep a content; returns its digest."""
        make_private(self._contents)
        digest = hashlib.sha256(content).hexdigest()
        if not self._is_intact(digest, len(content)):
            part = self._contents / f".{os.getpid()}.{uuid.uuid4().hex}"
            part.write_bytes(content)
            self._finish(part, digest)
        return digest

    def _finish(self, part: Path, digest: str) -> None:
        place = self.place(digest)
        make_private(place.parent)
        if place.is_file() and self._is_intact(digest, place.stat().st_size) and place.stat().st_size == part.stat().st_size:
            return
        os.chmod(part, 0o400)
        os.replace(part, place)
        status = place.stat()
        if status.st_size >= LARGE:
            _write(place.with_suffix(".json"), json.dumps({"status": _status(status)}).encode())

    # ------------------------------------------------------------------------------------------------ trees

    def unpack(self, package: Path, target: Path) -> list[str]:
        """Write the tree of a list; returns the digests of contents it shares.

        Raises:
            PackageError: a content is not there any more, or not what it was.
        """
        from flame_host._packages.unpack.tree import write_tree

        listing = json.loads(package.read_bytes())
        make_private(target)
        large: list[tuple[str, bool, str]] = []
        write_tree(self._members(listing, large), target, self._limits, compressed_size=sum(entry[1] for entry in listing["files"]))
        for name, executable, digest in large:
            content = self.place(digest)
            if not self._is_intact(digest, LARGE):
                raise PackageError(
                    f"the content of {name} was changed or removed in {self._contents}", hint="run the program again: it is packed anew"
                )
            share(content, target / name, executable)
        return [digest for _, _, digest in large]

    def _members(self, listing: Mapping[str, Any], large: list[tuple[str, bool, str]]) -> Iterator[Member]:
        for name, size, executable, digest in listing["files"]:
            if size >= LARGE:
                large.append((name, executable, digest))
                yield Member(name, MemberKind.FILE, 0, executable, content=b"")
                continue
            try:
                content = self.place(digest).read_bytes()
            except FileNotFoundError:
                content = b""
            if hashlib.sha256(content).hexdigest() != digest:
                raise PackageError(
                    f"the content of {name} was changed or removed in {self._contents}", hint="run the program again: it is packed anew"
                )
            yield Member(name, MemberKind.FILE, size, executable, content=content)
        for name, link in listing["links"]:
            yield Member(name, MemberKind.SYMLINK, link=link)

    def sweep(self, in_use: set[str], older_than: float, *, dry_run: bool = False) -> int:
        """Remove contents that no list and no tree names; returns the bytes freed."""
        wanted = set(in_use)
        for path in self._lists.glob(f"*{SUFFIX}"):
            with contextlib.suppress(OSError, ValueError):
                wanted.update(entry[3] for entry in json.loads(path.read_bytes())["files"])
        freed = 0
        for path in self._contents.glob("*/*"):
            with contextlib.suppress(OSError):
                status = path.stat()
                if path.suffix != ".json" and path.name not in wanted and status.st_mtime < older_than:
                    freed += status.st_size
                    if dry_run:
                        continue
                    path.unlink()
                    path.with_suffix(".json").unlink(missing_ok=True)
        return freed


def share(content: Path, target: Path, executable: bool = False) -> None:
    """Put a content where an empty file stands or nothing: blocks shared where that is possible, else a link to it."""
    target.unlink(missing_ok=True)
    with content.open("rb") as source, target.open("xb") as copy:
        try:
            fcntl.ioctl(copy.fileno(), _FICLONE, source.fileno())
            os.fchmod(copy.fileno(), 0o500 if executable else 0o400)
            return
        except OSError:
            pass
    target.unlink()
    target.symlink_to(content)


def _cloned(source: Any, target: Any) -> str:
    """The digest when the blocks could be shared, else nothing."""
    try:
        fcntl.ioctl(target.fileno(), _FICLONE, source.fileno())
    except OSError:
        return ""
    with open(target.name, "rb") as copy:
        hasher = hashlib.sha256()
        while block := copy.read(1 << 20):
            hasher.update(block)
    return hasher.hexdigest()


def _status(status: os.stat_result) -> list[int]:
    return [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]


def _now() -> int:
    import time

    return time.time_ns()


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
        return found if isinstance(found, dict) else {}
    except (OSError, ValueError):
        return {}


def _write(path: Path, content: bytes) -> None:
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    part.write_bytes(content)
    os.replace(part, path)
