"""The server's objects: versions, patches, prefixes, limits, damage."""

from __future__ import annotations

import sqlite3
import threading

import pytest

from flame_host.api import CacheError, ObjectNotFoundError, VersionConflictError
from flame_host.serve.objects import BadKeyError, CacheFullError, Objects

BIG = b"x" * 400_000


@pytest.fixture
def objects(tmp_path):
    opened = Objects(tmp_path, "grpc://127.0.0.1:9090")
    yield opened
    opened.close()


@pytest.mark.parametrize("key", ["", "a", "a/", "/a/b", "a/b/c/d", "a/../c", "a/b\\c", "a/*/c", "*/b", "a/b*"])
def test_what_is_no_key_is_refused(objects, key):
    with pytest.raises(BadKeyError):
        objects.put(key, b"data")


def test_a_put_names_one_session(objects):
    with pytest.raises(BadKeyError, match="every session"):
        objects.put("app/*", b"data")


def test_a_missing_object_is_missing(objects):
    with pytest.raises(ObjectNotFoundError, match="app/s/o"):
        objects.get("app/s/o")
    with pytest.raises(ObjectNotFoundError):
        objects.patch("app/s/o", b"data")


def test_an_update_of_another_version_is_refused(objects):
    with pytest.raises(ObjectNotFoundError):
        objects.put("app/s/o", b"", if_version=1)
    objects.put("app/s/o", b"one")
    with pytest.raises(VersionConflictError, match="version 1, not 2"):
        objects.put("app/s/o", b"", if_version=2)
    assert objects.put("app/s/o", b"two", if_version=1).version == 2


def test_a_full_cache_refuses_and_says_its_limit(tmp_path):
    objects = Objects(tmp_path, "grpc://h:1", disk=1000)
    objects.put("app/s/one", b"x" * 900)
    with pytest.raises(CacheFullError, match="limit of 1000"):
        objects.put("app/s/two", b"x" * 200)
    objects.put("app/s/one", b"x" * 1000)  # what it replaces makes room
    objects.delete("app/*")
    assert objects.size == 0
    objects.close()


@pytest.mark.parametrize("data", [b"small", BIG])
def test_a_damaged_object_is_not_given_out(tmp_path, data):
    objects = Objects(tmp_path, "grpc://h:1")
    stored = objects.put("app/s/o", data)
    objects.close()
    with sqlite3.connect(tmp_path / "objects.db") as db:
        db.execute("UPDATE objects SET data = x'00' WHERE data IS NOT NULL")
    for file in (tmp_path / "objects").iterdir():
        file.write_bytes(b"y" + data[1:])
    again = Objects(tmp_path, "grpc://h:1")
    with pytest.raises(CacheError, match="damaged"):
        again.get(stored.key)
    again.close()


def test_a_table_takes_no_patches_and_no_object_more_than_a_thousand(objects):
    objects.put("app/s/table", b"stream", arrow=True)
    with pytest.raises(CacheError, match="table"):
        objects.patch("app/s/table", b"")
    objects.put("app/s/o", b"")
    for _ in range(1000):
        objects.patch("app/s/o", b"p")
    with pytest.raises(CacheError, match="1000 patches"):
        objects.patch("app/s/o", b"p")


@pytest.mark.parametrize("data", [b"", b"small", BIG])
def test_an_object_and_its_patches_outlive_the_server(tmp_path, data):
    objects = Objects(tmp_path, "grpc://h:1")
    key = objects.put("app/s", data).key
    objects.patch(key, b"one")
    objects.patch(key, b"two")
    size = objects.size
    objects.close()

    again = Objects(tmp_path, "grpc://h:1")
    stored = again.get(key)
    assert (stored.data, stored.base, stored.version, stored.patches) == (data, 1, 3, ((2, b"one"), (3, b"two")))
    assert (again.size, again.count) == (size, 1)
    again.close()


def test_an_update_clears_the_patches_and_counts_on(objects):
    key = objects.put("app/s", BIG).key
    objects.patch(key, b"one")
    stored = objects.put(key, b"new")
    assert (stored.base, stored.version, stored.patches) == (3, 3, ())
    assert objects.get(key) == stored
    assert objects.size == 3
    assert not list(objects._files.iterdir())


def test_a_prefix_names_what_stands_below_it_and_nothing_beside(objects):
    for key in ("app/s/1", "app/s/2", "app/s2/1", "app2/s/1", "app/t/1"):
        objects.put(key, b"")
    assert objects.delete("app/s") == 2
    assert [key for key, _, _ in objects.listing()] == ["app/s2/1", "app/t/1", "app2/s/1"]
    assert objects.delete("app/*") == 2
    assert objects.delete("app/*") == 0
    assert objects.count == 1


def test_memory_is_bounded_and_the_rest_is_read_again(tmp_path):
    objects = Objects(tmp_path, "grpc://h:1", memory=4000)
    for number in range(100):
        objects.put(f"app/s/{number}", bytes([number]) * 500)
    assert objects._held_bytes <= 4000
    assert all(objects.get(f"app/s/{number}").data == bytes([number]) * 500 for number in range(100))
    objects.close()


def test_files_without_an_object_are_gone_at_the_next_start(tmp_path):
    objects = Objects(tmp_path, "grpc://h:1")
    kept = objects.put("app/s", BIG).key
    objects.close()
    (tmp_path / "objects" / "stray").write_bytes(b"")
    again = Objects(tmp_path, "grpc://h:1")
    assert again.get(kept).data == BIG
    assert len(list((tmp_path / "objects").iterdir())) == 1
    again.close()


def test_many_threads_get_versions_of_their_own(objects):
    key = objects.put("app/s", b"").key
    versions = []

    def update():
        for _ in range(50):
            versions.append(objects.put(key, b"x").version)

    threads = [threading.Thread(target=update) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(versions) == list(range(2, 202))
