"""What must not be lost: applications, sessions, tasks and results, in one SQLite file with one writer.

All of it is called from the server's event loop. Whatever is written in one turn of the loop becomes one transaction at its end, so a
thousand callers at once pay for one commit; each is answered after it. The journal is a write-ahead log without a sync for each
commit: what was answered survives the end of this process, however it comes, and the end of the machine up to the last checkpoint.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_host.api import ConfigError, FlameError

log = logging.getLogger(__name__)

_VERSION = 1
_SCHEMA = """
CREATE TABLE applications (name TEXT PRIMARY KEY, spec BLOB NOT NULL, creation INTEGER NOT NULL);
CREATE TABLE sessions (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, spec BLOB NOT NULL, creation INTEGER NOT NULL,
                       completion INTEGER, events BLOB NOT NULL);
CREATE TABLE tasks (key INTEGER PRIMARY KEY, creation INTEGER NOT NULL, input BLOB);
CREATE TABLE results (key INTEGER PRIMARY KEY, state INTEGER NOT NULL, started INTEGER NOT NULL, completion INTEGER NOT NULL,
                      output BLOB, message TEXT);
"""
_TABLES = {
    "applications": "name, spec, creation",
    "sessions": "number, id, spec, creation, completion, events",
    "tasks": "key, creation, input",
    "results": "key, state, started, completion, output, message",
}
_SHIFT = 32
"""A task's key is its session's number above its own: one index, and a session's tasks stand side by side."""
_CHECKPOINT_SECONDS = 2.0


Then = Callable[[FlameError | None], None]
"""What is to be done when something is kept, or cannot be."""


class StoreFullError(FlameError):
    """There is no room left to keep what was asked for."""


@dataclass(frozen=True)
class TaskRow:
    """A task as it is kept; times in milliseconds. ``state`` is None while it has no result."""

    task_id: int
    creation: int
    input: bytes | None
    state: int | None = None
    started: int = 0
    completion: int = 0
    output: bytes | None = None
    message: str | None = None


@dataclass(frozen=True)
class SessionRow:
    """A session as it is kept. ``spec`` and ``events`` are messages of the wire."""

    number: int
    session_id: str
    spec: bytes
    creation: int
    completion: int | None
    events: bytes


def key_of(number: int, task_id: int) -> int:
    return number << _SHIFT | task_id


class Store:
    """An open store.

    Args:
        path: of the file; made if it is not there.

    Raises:
        ConfigError: the file is damaged, of another version, or in use by another server.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._pending: list[tuple[str, Sequence[Any]]] = []
        self._then: list[Then] = []
        self._written: asyncio.Future[None] | None = None
        self._checkpointed = time.monotonic()
        try:
            self._db = _opened(path)
        except sqlite3.DatabaseError as error:
            raise _unusable(path, error) from error

    # ------------------------------------------------------------------------------------------------ writing

    def write(self, statement: str, *values: Any, then: Then | None = None) -> asyncio.Future[None]:
        """Part of this turn's transaction. The future is done when it is kept, and fails for all of the turn when it cannot be.

        Await it shielded: others wait for the same one.

        Args:
            then: called at once when it is kept, with None, or with the error: a future costs more than the row.
        """
        if self._written is None:
            loop = asyncio.get_running_loop()
            self._written = loop.create_future()
            loop.call_soon(self._commit)
        self._pending.append((statement, values))
        if then is not None:
            self._then.append(then)
        return self._written

    def _commit(self) -> None:
        pending, written, then = self._pending, self._written, self._then
        self._pending, self._written, self._then = [], None, []
        assert written is not None
        try:
            self._db.execute("BEGIN IMMEDIATE")
            for statement, values in pending:
                self._db.execute(statement, values)
            self._db.execute("COMMIT")
        except sqlite3.Error as error:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            log.error("nothing could be written to %s: %s", self.path, error)
            problem = _unwritable(self.path, error)
            if not written.done():
                written.set_exception(problem)
                written.exception()  # whoever has gone meanwhile need not be told
            for call in then:
                call(problem)
            return
        if not written.done():
            written.set_result(None)
        for call in then:
            call(None)
        self._checkpoint()

    def _checkpoint(self) -> None:
        if time.monotonic() - self._checkpointed > _CHECKPOINT_SECONDS:
            self._db.execute("PRAGMA wal_checkpoint(PASSIVE)")
            self._checkpointed = time.monotonic()

    def save_application(self, name: str, spec: bytes, creation: int) -> asyncio.Future[None]:
        return self.write("INSERT OR REPLACE INTO applications VALUES (?, ?, ?)", name, spec, creation)

    def forget_application(self, name: str) -> asyncio.Future[None]:
        return self.write("DELETE FROM applications WHERE name = ?", name)

    def save_session(self, row: SessionRow) -> asyncio.Future[None]:
        values = (row.number, row.session_id, row.spec, row.creation, row.completion, row.events)
        return self.write("INSERT OR REPLACE INTO sessions VALUES (?, ?, ?, ?, ?, ?)", *values)

    def forget_session(self, number: int) -> asyncio.Future[None]:
        between = (key_of(number, 0), key_of(number + 1, 0))
        self.write("DELETE FROM results WHERE key >= ? AND key < ?", *between)
        self.write("DELETE FROM tasks WHERE key >= ? AND key < ?", *between)
        return self.write("DELETE FROM sessions WHERE number = ?", number)

    def save_task(self, number: int, task_id: int, creation: int, data: bytes | None, then: Then | None = None) -> asyncio.Future[None]:
        return self.write("INSERT INTO tasks VALUES (?, ?, ?)", key_of(number, task_id), creation, data, then=then)

    def save_result(
        self,
        number: int,
        task_id: int,
        state: int,
        started: int,
        completion: int,
        output: bytes | None,
        message: str | None,
        then: Then | None = None,
    ) -> asyncio.Future[None]:
        """The first one stays: a task has one result, however often it ran."""
        values = (key_of(number, task_id), state, started, completion, output, message)
        return self.write("INSERT OR IGNORE INTO results VALUES (?, ?, ?, ?, ?, ?)", *values, then=then)

    # ------------------------------------------------------------------------------------------------ reading

    def applications(self) -> list[tuple[str, bytes, int]]:
        return self._db.execute("SELECT name, spec, creation FROM applications ORDER BY creation, name").fetchall()

    def sessions(self) -> list[SessionRow]:
        return [SessionRow(*row) for row in self._db.execute("SELECT * FROM sessions ORDER BY number")]

    def counts(self, number: int) -> dict[int, int]:
        """State → how many tasks ended in it."""
        query = "SELECT state, COUNT(*) FROM results WHERE key >= ? AND key < ? GROUP BY state"
        return dict(self._db.execute(query, (key_of(number, 0), key_of(number + 1, 0))).fetchall())

    def last_task(self, number: int) -> int:
        query = "SELECT MAX(key) FROM tasks WHERE key >= ? AND key < ?"
        (key,) = self._db.execute(query, (key_of(number, 0), key_of(number + 1, 0))).fetchone()
        return key - key_of(number, 0) if key else 0

    def task(self, number: int, task_id: int) -> TaskRow | None:
        row = self._db.execute(f"{_TASK} WHERE tasks.key = ?", (key_of(number, task_id),)).fetchone()
        return _task(number, row) if row else None

    def tasks(self, number: int, after: int = 0, *, most: int = 256) -> list[TaskRow]:
        """Some of a session's tasks, in order, from behind one."""
        query = f"{_TASK} WHERE tasks.key > ? AND tasks.key < ? ORDER BY tasks.key LIMIT ?"
        return [_task(number, row) for row in self._db.execute(query, (key_of(number, after), key_of(number + 1, 0), most))]

    def unfinished(self, number: int) -> Iterator[TaskRow]:
        query = f"{_TASK} WHERE tasks.key > ? AND tasks.key < ? AND results.key IS NULL ORDER BY tasks.key"
        for row in self._db.execute(query, (key_of(number, 0), key_of(number + 1, 0))):
            yield _task(number, row)

    def close(self) -> None:
        """Whatever was written before is kept."""
        if self._pending:
            self._commit()
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._db.close()


_TASK = (
    "SELECT tasks.key, tasks.creation, tasks.input, results.state, results.started, results.completion, results.output, results.message"
    " FROM tasks LEFT JOIN results ON results.key = tasks.key"
)


def _task(number: int, row: tuple[Any, ...]) -> TaskRow:
    key, creation, data, state, started, completion, output, message = row
    return TaskRow(key - key_of(number, 0), creation, data, state, started or 0, completion or 0, output, message)


# ---------------------------------------------------------------------------------------------------- the file


def _opened(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None, timeout=0.0, check_same_thread=False)  # it is closed by another one
    try:
        _set_up(db)
    except BaseException:
        db.close()
        raise
    return db


def _set_up(db: sqlite3.Connection) -> None:
    # The lock is the connection's as long as it is open: two servers on one state would run everything twice.
    for pragma in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = NORMAL", "wal_autocheckpoint = 0"):
        db.execute(f"PRAGMA {pragma}")
    (version,) = db.execute("PRAGMA user_version").fetchone()
    if version not in (0, _VERSION):
        raise sqlite3.DatabaseError(f"it is of version {version}, this server knows version {_VERSION}")
    (tables,) = db.execute("SELECT COUNT(*) FROM sqlite_master WHERE type = 'table'").fetchone()
    if not tables:
        db.execute("BEGIN IMMEDIATE")
        for statement in _SCHEMA.split(";"):
            db.execute(statement)
        db.execute(f"PRAGMA user_version = {_VERSION}")
        db.execute("COMMIT")
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise sqlite3.DatabaseError(verdict)


def _unusable(path: Path, error: sqlite3.DatabaseError) -> ConfigError:
    if "locked" in str(error):
        return ConfigError(f"another server uses {path}", hint="stop it, or give this one a --state of its own")
    return ConfigError(
        f"the state in {path} cannot be used: {error}",
        hint="start once with --repair: what can still be read goes on, and the damaged file stays beside it",
    )


def _unwritable(path: Path, error: sqlite3.Error) -> FlameError:
    if "full" in str(error) or "disk I/O" in str(error):
        return StoreFullError(f"the disk that {path} is on is full, or does not work: {error}", hint="make room; nothing answered is lost")
    return FlameError(f"nothing can be written to {path}: {error}")


def repair(path: Path) -> str:
    """Copy what can still be read into a new file; the damaged one is kept beside it under another name.

    Returns:
        What was kept and what was not, for people.
    """
    aside = path.with_name(f"{path.name}.damaged-{time.strftime('%Y%m%d-%H%M%S')}")
    for suffix in ("", "-wal", "-shm"):
        part = path.with_name(path.name + suffix)
        if part.exists():
            shutil.move(part, aside.with_name(aside.name + suffix))
    new = _opened(path)
    told = []
    try:
        old = sqlite3.connect(aside, isolation_level=None, timeout=1.0)
        for table, columns in _TABLES.items():
            told.append(f"{_copied(old, new, table, columns)} {table}")
        old.close()
    except sqlite3.Error as error:
        told.append(f"nothing more, for {error}")
    new.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    new.close()
    return f"kept {', '.join(told)}; the damaged file is {aside}"


def _copied(old: sqlite3.Connection, new: sqlite3.Connection, table: str, columns: str) -> int:
    """How many rows could be read; from both ends, because a damaged page in the middle stops a reader."""
    marks = ", ".join("?" for _ in columns.split(","))
    count = 0
    new.execute("BEGIN")
    for order in ("ASC", "DESC"):
        try:
            for row in old.execute(f"SELECT {columns} FROM {table} ORDER BY rowid {order}"):
                count += new.execute(f"INSERT OR IGNORE INTO {table} ({columns}) VALUES ({marks})", row).rowcount
            break
        except sqlite3.DatabaseError as error:
            log.info("%s in %s order: %s", table, order, error)
    new.execute("COMMIT")
    return count
