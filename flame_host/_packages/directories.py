"""Content-addressed directories that many processes share: made once, published by a marker, collected when nobody uses them.

A directory is built in place, under an exclusive lock, and exists from the moment its marker does, which stands beside it: what is
unpacked may have any name. Whatever a killed process left without one is moved aside. A shared lock on the same file means "in use",
and the kernel releases it however its holder ends.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import logging
import os
import re
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_host import api
from flame_host._packages import seals
from flame_host._private import is_ours_alone, make_private
from flame_host.api import ConfigError, FlameError, ProvisionError
from flame_host.api.packages import is_digest

_MOST_TRASH = 4  # directories that wait to be deleted
_LOOK_AGAIN = 0.01  # seconds between looks at what another process is building
Build = Callable[[Path], "Mapping[str, Any] | None"]
SCRATCH = ("fetched", "tree", "source", "files", "requirements", "temporary")
"""What a builder may make beside its directory, as ``.<key>.<word>``; removed with it when the builder is killed."""

KINDS = ("envs", "builds", "trees")

_SWEEPER = 'read -r done || for try in 1 2 3 4 5 6 7 8 9; do chmod -R u+w -- "$@" 2>/dev/null; rm -rf -- "$@" && break; sleep 0.2; done'
"""Waits for the end of the builder's pipe: a builder that is killed says nothing before."""

logger = logging.getLogger("flame_host.packages")


class Entry:
    """A complete directory in use.

    Attributes:
        facts: what its builder said about it.
    """

    def __init__(self, path: Path, facts: Mapping[str, Any], lock: int) -> None:
        self.path = path
        self.facts_of_marker = facts
        self.facts: Mapping[str, Any] = facts.get("facts", {})
        self._lock = lock

    def release(self) -> None:
        """Not used any more; idempotent."""
        lock, self._lock = self._lock, -1
        if lock >= 0:
            os.close(lock)

    def __del__(self) -> None:
        self.release()


@dataclass(frozen=True)
class EntryInfo:
    """A directory as the operator sees it. ``complete`` is false for what a killed process left behind."""

    kind: str
    key: str
    path: Path
    size: int
    last_use: float
    in_use: bool
    complete: bool
    facts: Mapping[str, Any]


class ContentStore:
    """Directories ``<root>/<kind>/<key>``, each with its marker ``<root>/markers/<kind>-<key>.json``; a key is 64 hex digits."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, kind: str, key: str) -> Entry | None:
        """The directory if it is complete. Cheap: one lock, one small file."""
        _check_key(key)
        lock = self._open_lock(kind, key)
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:  # being built or being removed
            os.close(lock)
            return None
        return self._entry(kind, key, lock)

    def ensure(self, kind: str, key: str, build: Build, *, anew: bool = False) -> Entry:
        """The directory, built by this process if it is not there.

        Of processes that ask at once one builds and the others wait; should it fail, they fail with the same error. A directory that
        was changed since it was made is not used: it is made again, beside the old one while somebody still uses that.

        Args:
            build: fills the empty directory it is given and returns facts, kept in the marker.
            anew: build it again in any case.
        """
        _check_key(key)
        begun = time.time()
        for generation in range(1000):
            name = hashlib.sha256(f"{key} {generation}".encode()).hexdigest() if generation else key
            entry = self._ensure(kind, name, build, begun)
            made = entry.facts_of_marker.get("made", 0.0)
            if anew and made < begun:
                reason = ""
            else:
                changed = seals.broken(entry.path, self._seal(kind, name))
                if not changed:
                    return entry
                reason = f"{kind}/{name} was changed since it was made ({changed})"
            entry.release()
            if reason:
                logger.warning("%s: it is not used any more, and made again", reason)
            if self._retire(kind, name):
                return self._ensure(kind, name, build, begun)
        raise ProvisionError(f"{kind}/{key} is changed again and again while it is in use", hint="see who writes into it")

    def _retire(self, kind: str, key: str) -> bool:
        """Out of the way, unless somebody uses it."""
        return self._remove(self._info(kind, self.root / kind / key))

    def _ensure(self, kind: str, key: str, build: Build, begun: float) -> Entry:
        while True:
            entry = self.find(kind, key)
            if entry is not None:
                return entry
            lock = self._open_lock(kind, key)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:  # being built, or in use already: not to be waited for in the kernel, users hold it for long
                os.close(lock)
                time.sleep(_LOOK_AGAIN)
                continue
            try:
                if self._facts(kind, key) is None:
                    self._raise_remembered(kind, key, begun)
                    self._build(kind, key, build, lock)
                fcntl.flock(lock, fcntl.LOCK_SH)  # not atomic: a collector may slip in between, so look again
            except BaseException:
                os.close(lock)
                raise
            entry = self._entry(kind, key, lock)
            if entry is not None:
                return entry

    def entries(self) -> Iterator[EntryInfo]:
        """All directories, complete or not."""
        for kind in KINDS:
            for path in sorted((self.root / kind).glob("*")):
                yield self._info(kind, path)

    def prune(self, unused_since: float, *, dry_run: bool = False) -> list[EntryInfo]:
        """Remove what is incomplete, and what was last used before that time and is not in use now."""
        removed = []
        for info in list(self.entries()):
            if info.in_use or (info.complete and info.last_use >= unused_since):
                continue
            if dry_run or self._remove(info):
                removed.append(info)
        if not dry_run:
            self.empty_trash()
        return removed

    def discard(self, path: Path) -> None:
        """Out of the way by one rename. Deleting is left for later: files made just after a deletion are slow to make."""
        trash = self.root / "trash"
        make_private(trash)
        seals.make_writable(path)
        with contextlib.suppress(FileNotFoundError):
            path.rename(trash / uuid.uuid4().hex)
        # But not for ever: whoever makes broken packages must not fill the disk.
        with contextlib.suppress(FileNotFoundError):  # another process empties it
            waiting = sorted(trash.iterdir(), key=lambda path: path.lstat().st_ctime_ns)
            for path in waiting[:-_MOST_TRASH]:
                seals.remove_tree(path)

    def empty_trash(self) -> None:
        seals.remove_tree(self.root / "trash")

    # ------------------------------------------------------------------------------------------------ parts

    def _build(self, kind: str, key: str, build: Build, lock: int) -> None:
        directory = self.root / kind / key
        marker = self._marker(kind, key)
        marker.unlink(missing_ok=True)
        self.discard(directory)
        make_private(directory)
        made = [directory, *(directory.with_name(f".{directory.name}.{word}") for word in SCRATCH)]
        with _swept_when_killed(made, lock):
            try:
                facts = build(directory) or {}
                seals.seal(directory, self._seal(kind, key))
                seals.close(directory)
            except BaseException as error:
                self.discard(directory)
                if isinstance(error, FlameError):
                    self._remember(kind, key, error)
                raise
            make_private(marker.parent)
            new = marker.with_suffix(".new")
            with new.open("w") as stream:
                json.dump({"facts": dict(facts), "made": time.time()}, stream)
                stream.flush()
                os.fsync(stream.fileno())
            new.rename(marker)

    @contextlib.contextmanager
    def temporary(self) -> Iterator[Path]:
        """A directory for what has no name yet; it goes with the block, and with this process."""
        directory = make_private(self.root / "temporary" / f"{os.getpid()}.{uuid.uuid4().hex}")
        with _swept_when_killed([directory]):
            try:
                yield directory
            finally:
                seals.remove_tree(directory)

    def _entry(self, kind: str, key: str, lock: int) -> Entry | None:
        directory = self.root / kind / key
        facts = self._facts(kind, key)
        if facts is None:
            os.close(lock)
            return None
        problem = is_ours_alone(directory)
        if problem:
            os.close(lock)
            raise ProvisionError(f"{directory} {problem}, and what stands there is run", hint="remove it, and look who could write there")
        os.utime(lock)
        return Entry(directory, facts, lock)

    def _seal(self, kind: str, key: str) -> Path:
        return self.root / "seals" / f"{kind}-{key}.json"

    def _open_lock(self, kind: str, key: str) -> int:
        path = self.root / "locks" / f"{kind}-{key}"
        try:
            return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            make_private(path.parent)
            return self._open_lock(kind, key)

    def _info(self, kind: str, path: Path) -> EntryInfo:
        lock = self._open_lock(kind, path.name)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            in_use = False
        except BlockingIOError:
            in_use = True
        finally:
            last_use = os.fstat(lock).st_mtime
            os.close(lock)
        facts = self._facts(kind, path.name)
        inner = facts["facts"] if facts is not None else {}
        return EntryInfo(kind, path.name, path, size_of(path), last_use, in_use, facts is not None, inner)

    def _remove(self, info: EntryInfo) -> bool:
        lock = self._open_lock(info.kind, info.key)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            seals.make_writable(info.path)
            with contextlib.suppress(FileNotFoundError):
                self._marker(info.kind, info.key).unlink()
            self._seal(info.kind, info.key).unlink(missing_ok=True)
            self.discard(info.path)
            return True
        except BlockingIOError:  # taken into use since we looked
            return False
        finally:
            os.close(lock)

    def _marker(self, kind: str, key: str) -> Path:
        return self.root / "markers" / f"{kind}-{key}.json"

    def _facts(self, kind: str, key: str) -> Mapping[str, Any] | None:
        """What the marker says; None without one, when it is damaged, or when its directory is gone: it has to be made anew."""
        try:
            marker = json.loads(self._marker(kind, key).read_bytes())
            good = isinstance(marker["facts"], dict) and isinstance(marker.get("made", 0.0), (int, float))
        except (FileNotFoundError, ValueError, KeyError, TypeError, RecursionError):
            return None
        return marker if good and os.path.lexists(self.root / kind / key) else None

    # ------------------------------------------------------------------------------------------------ failures

    def _failure(self, kind: str, key: str) -> Path:
        return self.root / "failures" / f"{kind}-{key}.json"

    def _remember(self, kind: str, key: str, error: FlameError) -> None:
        path = self._failure(kind, key)
        make_private(path.parent)
        state = {name: value for name, value in vars(error).items() if isinstance(value, (str, int, float))}
        new = path.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps({"type": type(error).__name__, "state": state, "time": time.time()}))
        new.rename(path)

    def _raise_remembered(self, kind: str, key: str, begun: float) -> None:
        """For those who waited while another failed: the same error. Who asks afterwards gets a new try."""
        try:
            record = json.loads(self._failure(kind, key).read_text())
        except (OSError, ValueError):
            return
        if record["time"] < begun or not 0 <= time.time() - record["time"] <= 30:  # from the future: the clock has jumped
            return
        error_type = getattr(api, record["type"], ProvisionError)
        error = error_type.__new__(error_type)
        error.args = (record["state"].get("message", ""),)
        error.__dict__.update({"message": "", "hint": "", "stage": "", "provider": "", "application": ""})
        error.__dict__.update(record["state"])
        raise error


def _check_key(key: str) -> None:
    """A key becomes a path; whoever chose it, it must not lead elsewhere. ``~n`` behind it is ours: made again while the former is used."""
    digest, tilde, generation = key.partition("~")
    if not is_digest(digest) or (tilde and not re.fullmatch("[1-9][0-9]{0,2}", generation)):
        raise ConfigError(f"{key!r:.100} is no key of a directory", hint="a key has 64 digits of 0-9 and a-f")


def size_of(directory: Path) -> int:
    """Bytes on disk, each hard-linked file counted in full."""
    total = 0
    stack = [str(directory)]
    while stack:
        with contextlib.suppress(OSError), os.scandir(stack.pop()) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                else:
                    total += entry.stat(follow_symlinks=False).st_size
    return total


@contextlib.contextmanager
def _swept_when_killed(directories: Sequence[Path], *locks: int) -> Iterator[None]:
    """Should this process be killed, a shell removes what is half-made; it holds the locks until that is done."""
    sweeper = subprocess.Popen(
        ["/bin/sh", "-c", _SWEEPER, "sh", *map(str, directories)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        pass_fds=locks,
        start_new_session=True,
    )
    try:
        yield
    finally:
        with contextlib.suppress(BrokenPipeError):
            sweeper.communicate(b"\n")
