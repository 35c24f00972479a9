"""The server's store: one transaction a turn, nothing answered is lost, what is damaged is said and saved."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from flame_host.api import ConfigError, TaskState
from flame_host.serve.store import SessionRow, Store, StoreFullError, key_of, repair


def row(number: int = 1, session_id: str = "s-1") -> SessionRow:
    return SessionRow(number, session_id, b"spec", 1, None, b"")


async def filled(path: Path, tasks: int = 3) -> None:
    store = Store(path)
    store.save_application("app", b"spec", 1)
    store.save_session(row())
    for task in range(1, tasks + 1):
        written = store.save_task(1, task, task, b"in%d" % task)
    store.save_result(1, 1, TaskState.SUCCEED, 5, 6, b"out", None)
    await written
    store.close()


async def test_a_damaged_file_is_named_with_what_to_do(tmp_path):
    path = tmp_path / "cluster.db"
    path.write_bytes(b"no database at all" * 100)
    with pytest.raises(ConfigError, match=r"cluster\.db.*\n.*--repair"):
        Store(path)


async def test_a_state_in_use_is_refused(tmp_path):
    first = Store(tmp_path / "cluster.db")
    with pytest.raises(ConfigError, match="another server uses"):
        Store(tmp_path / "cluster.db")
    first.close()
    Store(tmp_path / "cluster.db").close()


async def test_a_file_of_a_later_version_is_refused(tmp_path):
    path = tmp_path / "cluster.db"
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="version 99"):
        Store(path)


async def test_repair_keeps_what_can_be_read(tmp_path):
    path = tmp_path / "cluster.db"
    await filled(path, tasks=2000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2 // 4096 * 4096
    content[middle : middle + 4096] = b"\xff" * 4096
    path.write_bytes(content)
    with pytest.raises(ConfigError):
        Store(path)

    told = repair(path)

    assert "damaged-" in told
    store = Store(path)
    assert [name for name, _, _ in store.applications()] == ["app"]
    assert [session.session_id for session in store.sessions()] == ["s-1"]
    assert len(list(store.unfinished(1))) > 1000
    store.close()
    assert list(tmp_path.glob("cluster.db.damaged-*"))


async def test_a_full_disk_fails_what_was_asked_and_keeps_what_there_was(tmp_path):
    path = tmp_path / "cluster.db"
    await filled(path)
    store = Store(path)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")  # what a full disk looks like to SQLite

    with pytest.raises(StoreFullError, match="full"):
        await store.save_task(1, 9, 9, b"x" * 100_000)

    assert store.task(1, 9) is None
    assert store.task(1, 1).output == b"out"
    store._db.execute("PRAGMA max_page_count = 100000")
    await store.save_task(1, 9, 9, b"x" * 100_000)
    assert store.task(1, 9).input == b"x" * 100_000
    store.close()


async def test_what_is_written_in_one_turn_is_one_transaction(tmp_path):
    store = Store(tmp_path / "cluster.db")
    written = [store.save_task(1, number, 0, None) for number in range(1, 4)]
    assert len(set(map(id, written))) == 1
    assert store.task(1, 1) is None
    await written[0]
    assert store.task(1, 3) is not None
    store.close()


async def test_a_task_keeps_its_first_result(tmp_path):
    await filled(tmp_path / "cluster.db")
    store = Store(tmp_path / "cluster.db")
    await store.save_result(1, 1, TaskState.FAILED, 9, 9, None, "later")
    task = store.task(1, 1)
    assert (task.state, task.output, task.message) == (TaskState.SUCCEED, b"out", None)
    store.close()


async def test_what_has_no_result_is_unfinished(tmp_path):
    await filled(tmp_path / "cluster.db")
    store = Store(tmp_path / "cluster.db")
    assert [task.task_id for task in store.unfinished(1)] == [2, 3]
    assert store.counts(1) == {TaskState.SUCCEED: 1}
    assert store.last_task(1) == 3
    assert [task.task_id for task in store.tasks(1, 1, most=1)] == [2]
    store.close()


async def test_sessions_do_not_see_each_others_tasks(tmp_path):
    store = Store(tmp_path / "cluster.db")
    store.save_session(row(1, "a"))
    store.save_session(row(2, "b"))
    store.save_task(1, 7, 0, b"a")
    await store.save_task(2, 1, 0, b"b")
    await store.forget_session(1)
    assert store.tasks(1) == []
    assert [task.input for task in store.tasks(2)] == [b"b"]
    assert key_of(2, 1) - key_of(1, 1) == 1 << 32
    store.close()
