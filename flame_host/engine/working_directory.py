"""Where tasks run: the files of their own package, as copies, in a directory that no other run and no other package uses.

What tasks write there is theirs: it damages neither the shared tree nor the next run. A directory that nobody wrote into is used again
by the next run of the same package; one that was written into is kept for its owner for a while, and not used again.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from flame_host._packages import seals
from flame_host._packages.files import LARGE, share
from flame_host._private import make_private
from flame_host.api import Application, Environment

KEPT_SECONDS = 7 * 86_400.0
"""How long what tasks wrote is kept."""

_MOST_KEPT = 5
_HIDDEN = (seals.PLACE, ".flame-package.json")


class WorkingDirectory(NamedTuple):
    """Attributes:
    has_links: some files are links to contents that others read, too.
    """

    path: Path
    has_links: bool = False


class WorkingDirectories:
    """Those of one connection: one for each application and package, in use until it is let go.

    Args:
        root: the host's.
    """

    def __init__(self, root: Path) -> None:
        self._root = root / "work"
        self._locks = root / "locks"
        self._notes = root / "seals"
        self._held: dict[tuple[str, str], tuple[Path, int, bool]] = {}
        self._turn = threading.Lock()

    def of(self, application: Application, environment: Environment) -> WorkingDirectory:
        """The directory to run in. One that the application names is used as it is: nothing is put there."""
        if application.working_directory:
            given = Path(application.working_directory)
            make_private(given)
            return WorkingDirectory(given)
        package = environment.package or environment.tree
        key = (application.name, package.name if package is not None else "none")
        with self._turn:
            if key not in self._held:
                self._held[key] = self._take(application.name, key[1], package)
            place, _, has_links = self._held[key]
        inside = environment.directory.relative_to(package) if environment.directory is not None and package is not None else Path()
        return WorkingDirectory(place / inside if (place / inside).is_dir() else place, has_links)

    def let_go(self, name: str) -> None:
        """Not used any more by the application's sessions."""
        with self._turn:
            for key in [key for key in self._held if key[0] == name]:
                os.close(self._held.pop(key)[1])

    def close(self) -> None:
        for name in {key[0] for key in self._held}:
            self.let_go(name)

    def _take(self, name: str, package: str, tree: Path | None) -> tuple[Path, int, bool]:
        """The first directory that is free and as it was made, or a new one; on the way what nobody needs any more is removed."""
        make_private(self._locks)
        make_private(self._notes)
        own = self._root / re.sub(r"[^A-Za-z0-9._-]", "_", name)
        make_private(own)
        self._tidy(own, package[:16])
        for number in range(10_000):
            place = own / f"{package[:16]}-{number}"
            lock = self._lock(place)
            if lock is None:
                continue
            note = self._note(place)
            if place.is_dir() and note.is_file():
                if seals.differs(place, note):
                    os.close(lock)  # a task wrote here
                    continue
                return place, lock, _has_links(json.loads(note.read_bytes()))
            seals.remove_tree(place)
            _fill(place, tree)
            facts = seals.look(place)
            note.write_text(json.dumps(facts))
            return place, lock, _has_links(facts)
        raise AssertionError("ten thousand runs of one package at once")

    def _tidy(self, own: Path, package: str) -> None:
        kept = []
        for place in own.iterdir():
            lock = self._lock(place)
            if lock is None:
                continue
            try:
                written = seals.differs(place, self._note(place))
                if written and (touched := place.stat().st_mtime) > time.time() - KEPT_SECONDS:
                    kept.append((place, touched))
                elif written or not place.name.startswith(f"{package}-"):
                    self._remove(place)
            except FileNotFoundError:  # another program of this name tidies, too
                continue
            finally:
                os.close(lock)
        for place, _ in sorted(kept, key=lambda entry: -entry[1])[_MOST_KEPT:]:
            self._remove(place)

    def _remove(self, place: Path) -> None:
        seals.remove_tree(place)
        self._note(place).unlink(missing_ok=True)

    def _note(self, place: Path) -> Path:
        return self._notes / f"work-{place.parent.name}-{place.name}.json"

    def _lock(self, place: Path) -> int | None:
        """Held by one run at a time; the kernel takes it back however that ends."""
        lock = os.open(self._locks / f"work-{place.parent.name}-{place.name}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return None
        return lock


def _has_links(facts: Mapping[str, list[int | str]]) -> bool:
    return any(len(entry) > 4 and os.path.isabs(str(entry[4])) for entry in facts.values())


def _fill(place: Path, tree: Path | None) -> None:
    """Copies; of large files the blocks are shared, or they are links to a read-only content until a task opens one for writing."""
    make_private(place)
    if tree is None:
        return
    for here, directories, files in os.walk(tree):
        relative = os.path.relpath(here, tree)
        target = place / relative
        if relative == ".":
            directories[:] = [name for name in directories if name not in _HIDDEN]
            files = [name for name in files if name not in _HIDDEN]
        for name in directories:
            source = os.path.join(here, name)
            if os.path.islink(source):
                os.symlink(os.readlink(source), target / name)
            elif name != "__pycache__":
                os.mkdir(target / name)
        directories[:] = [name for name in directories if name != "__pycache__"]
        for name in files:
            _copy(Path(here, name), target / name)


def _copy(source: Path, target: Path) -> None:
    if source.is_symlink():
        link = os.readlink(source)
        if os.path.isabs(link):
            share(Path(link), target)
            with contextlib.suppress(OSError):
                if not target.is_symlink():
                    os.chmod(target, 0o644)
        else:
            os.symlink(link, target)
        return
    status = source.stat()
    if status.st_size >= LARGE:
        shutil.copyfile(source, target)
    else:
        target.write_bytes(source.read_bytes())
    if status.st_mode & 0o111:
        target.chmod(0o755)
