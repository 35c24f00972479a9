"""All that stands in a host's directory, by kind, with sizes; and away with what nobody uses.

Environments, builds and trees are content-addressed (`directories`); beside them stand packages as archives or lists, the contents of
lists, what we bring into environments, working directories, and logs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path

from flame_host._packages import seals
from flame_host._packages.directories import ContentStore, EntryInfo, size_of
from flame_host._packages.files import FileStore
from flame_host.api import Limits

UNUSED_SECONDS = 30 * 86_400.0
"""After which the host removes things by itself, once a day."""

_SHORTLY = 60.0  # seconds that contents are kept though no list names them yet: one may be being written


class Stock:
    """A host's directory as its operator sees it."""

    def __init__(self, root: Path) -> None:
        self.store = ContentStore(root)
        self.files = FileStore(root, Limits())
        self.root = root

    def entries(self) -> Iterator[EntryInfo]:
        yield from self.store.entries()
        for path in sorted((self.root / "packs").glob("*")):
            if not path.name.startswith((".", "known-", "listing-")) and path.suffix != ".json":
                yield self._plain("packs", path)
        contents = self.root / "files"
        if contents.is_dir():
            yield EntryInfo("files", "contents", contents, size_of(contents), contents.stat().st_mtime, True, True, {})
        for path in sorted((self.root / "support").glob("*")):
            yield self._plain("support", path)
        for path in sorted((self.root / "work").glob("*/*")):
            yield self._plain("work", path, {"application": path.parent.name})
        for path in sorted((self.root / "logs").rglob("*")):
            if path.is_file():
                yield self._plain("logs", path)

    def prune(self, unused_since: float, *, dry_run: bool = False) -> list[EntryInfo]:
        """Remove what is half-made, and what was last used before that time and is not in use now."""
        removed = self.store.prune(unused_since, dry_run=dry_run)
        for info in self.entries():
            if info.kind in ("envs", "builds", "trees", "files") or info.in_use or info.last_use >= unused_since:
                continue
            if not dry_run:
                seals.remove_tree(info.path) if info.path.is_dir() else info.path.unlink(missing_ok=True)
                (self.root / "seals" / f"work-{info.path.parent.name}-{info.path.name}.json").unlink(missing_ok=True)
            removed.append(info)
        contents = self.root / "files"
        if contents.is_dir():
            freed = self.files.sweep(self._shared(), min(unused_since, time.time() - _SHORTLY), dry_run=dry_run)
            if freed:
                removed.append(EntryInfo("files", "contents", contents, freed, 0.0, False, True, {}))
        return removed

    def _shared(self) -> set[str]:
        """Contents that trees are linked to."""
        return {digest for info in self.store.entries() for digest in info.facts.get("shared", ())}

    def _plain(self, kind: str, path: Path, facts: dict[str, str] | None = None) -> EntryInfo:
        status = path.lstat()
        size = size_of(path) if path.is_dir() else status.st_size
        in_use = self._is_held(f"{kind}-{path.parent.name}-{path.name}" if kind == "work" else f"{kind}-{path.name}")
        return EntryInfo(kind, path.name, path, size, status.st_mtime, in_use, True, facts or {})

    def _is_held(self, name: str) -> bool:
        path = self.root / "locks" / name
        if not path.exists():
            return False
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False


def tidy_once_a_day(root: Path) -> None:
    """Garbage is bounded without anybody asking: called when something new was made."""
    stamp = root / "tidied"
    with contextlib.suppress(OSError):
        try:
            if stamp.stat().st_mtime > time.time() - 86_400:
                return
        except FileNotFoundError:
            stamp.touch(0o600)  # a new root has nothing to tidy
            return
        os.utime(stamp)
        Stock(root).prune(time.time() - UNUSED_SECONDS)
