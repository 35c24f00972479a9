"""The objects of the cluster: versions with patches, under keys ``<application>/<session>/<object>``, in SQLite and files.

Safe to use from every thread. An object is kept before its put returns; small ones in the database, so that a result costs a row and
not a file, large ones in files of their own. What was read or written last is held in memory, up to a limit. Every content has a
checksum, and is not given out when it does not fit.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
import time
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flame_host.api import CacheError, ConfigError, ObjectNotFoundError, VersionConflictError

_SCHEMA = """
CREATE TABLE IF NOT EXISTS objects (key TEXT PRIMARY KEY, base INTEGER NOT NULL, version INTEGER NOT NULL, arrow INTEGER NOT NULL,
    size INTEGER NOT NULL, checksum INTEGER NOT NULL, file TEXT, data BLOB) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS patches (key TEXT NOT NULL, version INTEGER NOT NULL, size INTEGER NOT NULL, checksum INTEGER NOT NULL,
    data BLOB NOT NULL, PRIMARY KEY (key, version)) WITHOUT ROWID;
"""
_LARGE = 256 << 10
"""Bytes from which an object is a file."""
_MOST_PATCHES = 1000


class BadKeyError(CacheError):
    """What was given is no key, or no prefix."""


class CacheFullError(CacheError):
    """There is no room for an object."""


@dataclass(frozen=True)
class Stored:
    """An object as it is now.

    Attributes:
        base: version of the content. version: of the whole, patches included.
        arrow: the content is an Arrow stream of a table; otherwise bytes of the client's.
    """

    key: str
    base: int
    version: int
    arrow: bool
    data: bytes
    patches: tuple[tuple[int, bytes], ...] = ()

    @property
    def size(self) -> int:
        return len(self.data) + sum(len(data) for _, data in self.patches)


class Objects:
    """An open store of objects.

    Args:
        directory: where they are kept.
        endpoint: what references to them name.
        memory: bytes held in memory. disk: bytes kept in all.
    """

    def __init__(self, directory: Path, endpoint: str, *, memory: int = 256 << 20, disk: int = 64 << 30) -> None:
        self.endpoint = endpoint
        self._files = directory / "objects"
        self._files.mkdir(parents=True, exist_ok=True)
        self._lock = threading.Lock()
        self._memory = memory
        self._held: OrderedDict[str, Stored] = OrderedDict()
        self._held_bytes = 0
        self._disk = disk
        path = directory / "objects.db"
        try:
            self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            for pragma in ("journal_mode = WAL", "synchronous = NORMAL"):
                self._db.execute(f"PRAGMA {pragma}")
            self._db.executescript(_SCHEMA)
            (self._bytes, self.count) = self._db.execute("SELECT COALESCE(SUM(size), 0), COUNT(*) FROM objects").fetchone()
            self._bytes += self._db.execute("SELECT COALESCE(SUM(size), 0) FROM patches").fetchone()[0]
            self._remove_strays()
        except sqlite3.DatabaseError as error:
            raise ConfigError(
                f"the objects in {path} cannot be used: {error}", hint=f"move {path} away to begin without objects, or restore it"
            ) from error

    @property
    def size(self) -> int:
        """Bytes kept."""
        return int(self._bytes)

    # ------------------------------------------------------------------------------------------------ writing

    def put(self, key: str, data: bytes, *, arrow: bool = False, if_version: int | None = None) -> Stored:
        """Store under a key, replacing what is there; or under a fresh name, given a prefix.

        Args:
            if_version: replace that version only.

        Raises:
            VersionConflictError: there is another one. ObjectNotFoundError: there is none, and one was named.
        """
        parts = parts_of(key)
        if "*" in parts:
            raise BadKeyError(f"{key!r} names the objects of every session; a put names one session")
        if len(parts) == 2:
            key = f"{key}/{uuid.uuid4()}"
        checksum = zlib.crc32(data)
        with self._lock:
            old_version, old_size, old_file = self._standing(key) if len(parts) == 3 else (0, 0, None)
            if if_version is not None and not old_version:
                raise _missing(key)
            if if_version not in (None, old_version):
                raise VersionConflictError(f"object <{key}> is of version {old_version}, not {if_version}")
            self._check_room(len(data) - old_size)
            version = old_version + 1
            file = self._write_file(data) if len(data) >= _LARGE else None
            try:
                self._transact(
                    ("DELETE FROM patches WHERE key = ?", (key,)),
                    (
                        "INSERT OR REPLACE INTO objects VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                        (key, version, version, arrow, len(data), checksum, file, None if file else data),
                    ),
                )
            except BaseException:
                if file:
                    (self._files / file).unlink(missing_ok=True)
                raise
            self._remove_file(old_file)
            self._bytes += len(data) - old_size
            self.count += 0 if old_version else 1
            stored = Stored(key, version, version, arrow, data)
            self._hold(stored)
        return stored

    def patch(self, key: str, data: bytes) -> Stored:
        """Append a change.

        Raises:
            ObjectNotFoundError: there is nothing to change. CacheError: it is a table, or has been changed too often.
        """
        with self._lock:
            old = self._read(key)
            if old.arrow:
                raise CacheError(f"object <{key}> is a table, which takes no patches", hint="update it")
            if len(old.patches) >= _MOST_PATCHES:
                raise CacheError(f"object <{key}> has {_MOST_PATCHES} patches, and can have no more", hint="update it")
            self._check_room(len(data))
            version = old.version + 1
            self._transact(
                ("INSERT INTO patches VALUES (?, ?, ?, ?, ?)", (key, version, len(data), zlib.crc32(data), data)),
                ("UPDATE objects SET version = ? WHERE key = ?", (version, key)),
            )
            self._bytes += len(data)
            stored = Stored(key, old.base, version, False, old.data, (*old.patches, (version, data)))
            self._hold(stored)
        return stored

    def delete(self, key: str) -> int:
        """An object, all of a session, or of an application (``<application>/*``); returns how many went. Missing is no error."""
        parts = parts_of(key)
        if len(parts) == 3:
            where = "key = ?"
            values: tuple[str, ...] = (key,)
        else:
            prefix = f"{parts[0]}/" if parts[1] == "*" else f"{key}/"
            where, values = "key >= ? AND key < ?", (prefix, prefix[:-1] + "0")  # "0" comes after "/"
        with self._lock:
            gone = self._db.execute(f"SELECT key, size, file FROM objects WHERE {where}", values).fetchall()
            (patches,) = self._db.execute(f"SELECT COALESCE(SUM(size), 0) FROM patches WHERE {where}", values).fetchone()
            self._transact((f"DELETE FROM patches WHERE {where}", values), (f"DELETE FROM objects WHERE {where}", values))
            for name, size, file in gone:
                self._bytes -= size
                self._let_go(name)
                self._remove_file(file)
            self._bytes -= patches
            self.count -= len(gone)
        return len(gone)

    # ------------------------------------------------------------------------------------------------ reading

    def get(self, key: str) -> Stored:
        """Raises `ObjectNotFoundError`, or `CacheError` for one that is damaged."""
        if len(parts_of(key)) != 3:
            raise BadKeyError(f"{key!r} is no key of an object: <application>/<session>/<object>")
        with self._lock:
            return self._read(key)

    def version(self, key: str) -> int:
        """The current version, without the content; raises as `get` does."""
        with self._lock:
            held = self._held.get(key)
            if held is not None:
                return held.version
            row = self._db.execute("SELECT version FROM objects WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise _missing(key)
        return int(row[0])

    def listing(self) -> list[tuple[str, int, int]]:
        """Key, version and size of every object."""
        with self._lock:
            return self._db.execute("SELECT key, version, size FROM objects ORDER BY key").fetchall()

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # ------------------------------------------------------------------------------------------------ parts

    def _read(self, key: str) -> Stored:
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            return held
        row = self._db.execute("SELECT base, version, arrow, checksum, file, data FROM objects WHERE key = ?", (key,)).fetchone()
        if row is None:
            raise _missing(key)
        base, version, arrow, checksum, file, data = row
        try:
            content = (self._files / file).read_bytes() if file else data
        except OSError as error:
            raise CacheError(f"object <{key}> cannot be read: {error}") from error
        rows = self._db.execute("SELECT version, checksum, data FROM patches WHERE key = ? ORDER BY version", (key,)).fetchall()
        for expected, part in [(checksum, content), *((expected, part) for _, expected, part in rows)]:
            if zlib.crc32(part) != expected:
                raise CacheError(f"object <{key}> is damaged: its content is not what was stored", hint="store it again")
        stored = Stored(key, base, version, bool(arrow), content, tuple((number, part) for number, _, part in rows))
        self._hold(stored)
        return stored

    def _standing(self, key: str) -> tuple[int, int, str | None]:
        """Version, bytes with patches, and file of what stands under a key; zeros for nothing."""
        row = self._db.execute("SELECT version, size, file FROM objects WHERE key = ?", (key,)).fetchone()
        if row is None:
            return 0, 0, None
        (patches,) = self._db.execute("SELECT COALESCE(SUM(size), 0) FROM patches WHERE key = ?", (key,)).fetchone()
        return row[0], row[1] + patches, row[2]

    def _transact(self, *statements: tuple[str, Sequence[object]]) -> None:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in statements:
                self._db.execute(statement, tuple(values))
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            if "full" in str(error) or "disk I/O" in str(error):
                raise CacheFullError(f"the disk of the object cache is full, or does not work: {error}", hint="make room") from error
            raise CacheError(f"the object cache cannot be written: {error}") from error

    def _check_room(self, more: int) -> None:
        if self._bytes + more > self._disk:
            raise CacheFullError(
                f"the object cache keeps {self._bytes} bytes, and {more} more would be over its limit of {self._disk}",
                hint="delete objects, close Runners, or start the server with a larger --cache-size",
            )

    def _write_file(self, data: bytes) -> str:
        name = uuid.uuid4().hex
        part = self._files / f".{name}"
        try:
            with part.open("xb") as stream:
                stream.write(data)
            part.rename(self._files / name)
        except OSError as error:
            part.unlink(missing_ok=True)
            raise CacheFullError(f"an object of {len(data)} bytes cannot be kept: {error}", hint="make room on the disk") from error
        return name

    def _remove_file(self, name: str | None) -> None:
        if name:
            (self._files / name).unlink(missing_ok=True)

    def _remove_strays(self) -> None:
        """Files of puts that the end of an earlier server came between."""
        known = {name for (name,) in self._db.execute("SELECT file FROM objects WHERE file IS NOT NULL")}
        for entry in os.scandir(self._files):
            if entry.name not in known:
                os.unlink(entry.path)

    def _hold(self, stored: Stored) -> None:
        self._let_go(stored.key)
        if stored.size > self._memory // 4:  # one should not push out all others
            return
        self._held[stored.key] = stored
        self._held_bytes += stored.size
        while self._held_bytes > self._memory:
            _, oldest = self._held.popitem(last=False)
            self._held_bytes -= oldest.size

    def _let_go(self, key: str) -> None:
        held = self._held.pop(key, None)
        if held is not None:
            self._held_bytes -= held.size


def parts_of(key: str) -> tuple[str, ...]:
    """Two of a prefix, three of a key; the session of a prefix may be ``*``.

    Raises:
        BadKeyError: it is neither.
    """
    parts = tuple(key.split("/"))
    bad = any(not part or ".." in part or "\\" in part or "\0" in part for part in parts)
    starred = any("*" in part for part in parts) and not (len(parts) == 2 and parts[1] == "*" and "*" not in parts[0])
    if len(parts) not in (2, 3) or bad or starred:
        raise BadKeyError(f"{key!r:.200} is no key: <application>/<session>/<object>, or without the object for all of a session")
    return parts


def _missing(key: str) -> ObjectNotFoundError:
    return ObjectNotFoundError(f"object <{key}> not found")


def repair(directory: Path) -> str:
    """Put a damaged database of objects aside, so that a server can start; objects in it are copied as far as they can be read."""
    path = directory / "objects.db"
    if not path.exists():
        return "there were no objects"
    try:
        db = sqlite3.connect(path)
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        db.close()
        if verdict == "ok":
            return "the objects are all right"
    except sqlite3.DatabaseError:
        pass
    aside = path.with_name(f"objects.db.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            shutil.move(part, aside.with_name(aside.name + suffix))
    new = sqlite3.connect(path, isolation_level=None)
    new.executescript(_SCHEMA)
    count = 0
    try:
        old = sqlite3.connect(aside)
        for table, marks in (("objects", "?, ?, ?, ?, ?, ?, ?, ?"), ("patches", "?, ?, ?, ?, ?")):
            for row in old.execute(f"SELECT * FROM {table}"):
                count += new.execute(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", row).rowcount
    except sqlite3.DatabaseError:
        pass
    new.close()
    return f"kept {count} objects and patches; the damaged file is {aside}"
