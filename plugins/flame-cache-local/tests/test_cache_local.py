"""Objects on this machine: the contract in memory and in a directory, and what others may have done to the directory."""

from __future__ import annotations

import multiprocessing
import os
import stat
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
from flame_cache_local.local_cache import LocalCache

from flame_host.api import CacheError, ConfigError, ObjectNotFoundError, ObjectRef, ObjectStore, Payload, VersionConflictError, buffer_view
from flame_host.testing.caches import CacheContract, contents, payload_of


class TestMemory(CacheContract):
    @pytest.fixture
    def cache(self) -> LocalCache:
        return LocalCache()

    @pytest.fixture
    def endpoint(self) -> str:
        return "local:"


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "keys" / "cache.key"
    monkeypatch.delenv("FLAME_CACHE_KEY", raising=False)
    monkeypatch.setenv("FLAME_CACHE_KEY_FILE", str(path))
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def objects(root: Path, key_file: Path) -> ObjectStore:
    return LocalCache().open(root.as_uri())


class TestDirectory(CacheContract):
    @pytest.fixture
    def cache(self, key_file: Path) -> LocalCache:
        return LocalCache()

    @pytest.fixture
    def endpoint(self, root: Path) -> str:
        return root.as_uri()


def the_file(root: Path) -> Path:
    (path,) = root.rglob("*.object")
    return path


def flip(position: int) -> Callable[[bytes], bytes]:
    def damage(content: bytes) -> bytes:
        index = position % len(content)
        return content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :]

    return damage


@pytest.mark.parametrize(
    "damage",
    [flip(0), flip(8), flip(40), flip(42), flip(60), flip(5000), flip(-1), lambda content: content[:-1], lambda content: content[:20],
     lambda content: b"", lambda content: content[:100], lambda content: b"FLAMEOB1" + b"\xff" * 100],
)  # fmt: skip
@pytest.mark.parametrize("fresh", [True, False], ids=["another process", "the same store"])
def test_a_damaged_file_is_never_handed_out(
    root: Path, key_file: Path, objects: ObjectStore, damage: Callable[[bytes], bytes], fresh: bool
) -> None:
    ref = objects.put("app/session/x", payload_of("data" * 300, b"b" * 70_000))
    objects.get(ref)
    path = the_file(root)
    path.write_bytes(damage(path.read_bytes()))
    reader = LocalCache().open(root.as_uri()) if fresh else objects
    with pytest.raises(CacheError) as caught:
        reader.get(ref)
    assert not isinstance(caught.value, (ObjectNotFoundError, VersionConflictError))


def test_a_file_signed_with_another_key_is_refused(root: Path, objects: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    ref = objects.put("app/session/x", payload_of("x"))
    monkeypatch.setenv("FLAME_CACHE_KEY", "ab" * 32)
    with pytest.raises(CacheError, match="signature"):
        LocalCache().open(root.as_uri()).get(ref)


def test_a_file_moved_to_another_key_is_refused(root: Path, objects: ObjectStore) -> None:
    objects.put("app/session/x", payload_of("of x"))
    the_file(root).rename(the_file(root).with_name("y.object"))
    with pytest.raises(CacheError, match="holds app/session/x"):
        objects.get(ObjectRef(objects.endpoint, "app/session/y"))


def test_a_key_deleted_and_stored_again_does_not_answer_old_references(objects: ObjectStore) -> None:
    old = objects.put("app/session/x", payload_of("old"))
    objects.delete("app/session/x")
    new = objects.put("app/session/x", payload_of("new"))
    with pytest.raises(ObjectNotFoundError):
        objects.get(old)
    assert objects.get(new).data == b"new"


def test_directory_files_and_key_are_for_their_owner_alone(root: Path, key_file: Path, objects: ObjectStore) -> None:
    objects.put("app/session/x", payload_of("x"))
    for path in (root, *root.rglob("*"), key_file):
        assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path


def test_a_directory_others_can_look_into_is_refused(root: Path, key_file: Path) -> None:
    root.mkdir()
    (root / "something").touch()
    root.chmod(0o755)
    with pytest.raises(CacheError, match="chmod 700"):
        LocalCache().open(root.as_uri())


def test_a_key_others_can_read_is_refused(root: Path, key_file: Path) -> None:
    LocalCache().open(root.as_uri())
    key_file.chmod(0o644)
    with pytest.raises(CacheError, match="chmod 600"):
        LocalCache().open(root.as_uri())


def test_a_key_within_the_cache_short_or_not_hexadecimal_is_refused(root: Path, key_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_CACHE_KEY_FILE", str(root / "cache.key"))
    with pytest.raises(ConfigError, match="inside"):
        LocalCache().open(root.as_uri())
    for key in ("abcd", "no hex"):
        monkeypatch.setenv("FLAME_CACHE_KEY", key)
        with pytest.raises(ConfigError):
            LocalCache().open(root.as_uri())


@pytest.mark.parametrize("endpoint", ["file:relative", "file://host/dir", "http://host", "file:///d?x=1", "nonsense", "file:///dev/null/x"])
def test_an_endpoint_that_names_nothing_of_this_machine_is_refused(endpoint: str, key_file: Path) -> None:
    with pytest.raises(CacheError):
        LocalCache().open(endpoint)


def test_nothing_half_written_and_no_trash_is_left(root: Path, objects: ObjectStore) -> None:
    ref = objects.put("app/session", payload_of("x", b"y" * 100_000))
    with pytest.raises(VersionConflictError):
        objects.update(ref, payload_of("z"), if_version=9)
    assert [path.suffix for path in root.rglob("*") if path.is_file()] == [".object"]
    objects.delete("app/session")
    assert not [path for path in root.rglob("*") if path.is_file()]


def test_buffers_are_mapped_and_page_aligned(root: Path, objects: ObjectStore) -> None:
    numpy = pytest.importorskip("numpy")
    value = numpy.arange(200_000)
    ref = objects.put("app/session", payload_of("x", b"odd", memoryview(value)))
    found = numpy.frombuffer(buffer_view(objects.get(ref).buffers[1]), dtype=value.dtype)
    assert numpy.array_equal(found, value)
    assert found.ctypes.data % 4096 == 0


def count_up(endpoint: str, times: int) -> list[int]:
    objects, versions = LocalCache().open(endpoint), []
    ref = ObjectRef(endpoint, "app/session/x", 0)
    while len(versions) < times:
        number = int(objects.get(ref).data)
        try:
            versions.append(objects.update(ref, payload_of(str(number + 1)), if_version=number + 1).version)
        except VersionConflictError:
            continue
    return versions


def test_processes_take_turns(objects: ObjectStore) -> None:
    objects.put("app/session/x", payload_of("0"))
    with ProcessPoolExecutor(3, mp_context=multiprocessing.get_context("fork" if os.name == "posix" else "spawn")) as pool:
        versions = sorted(version for part in pool.map(count_up, [objects.endpoint] * 3, [15] * 3) for version in part)
    assert versions == list(range(2, 47))


def test_the_default_is_this_processs_memory_and_goes_with_its_last_user() -> None:
    cache = LocalCache()
    first, second = cache.open(""), cache.open("local:")
    ref = first.put("app/session", payload_of("x"))
    first.close()
    assert second.get(ref).data == b"x"
    second.close()
    with pytest.raises(ObjectNotFoundError):
        cache.open("local:").get(ref)


def test_named_spaces_are_apart() -> None:
    cache = LocalCache()
    here, there = cache.open("local:one"), cache.open("local:two")
    ref = here.put("app/session/x", payload_of("x"))
    with pytest.raises(ObjectNotFoundError):
        there.get(replace(ref, endpoint="local:two"))


class Shared:
    """A segment, as the host makes them."""

    size = 3

    def view(self) -> memoryview:
        return memoryview(b"abc")


@pytest.mark.parametrize("where", ["memory", "directory"])
def test_segments_are_taken_as_buffers(where: str, root: Path, key_file: Path) -> None:
    objects = LocalCache().open("local:" if where == "memory" else root.as_uri())
    segment = Shared()
    payload = Payload("f/1", b"", (segment,))
    found = objects.get(objects.put("app/session", payload))
    assert contents(found) == ("f/1", b"", [b"abc"])
    assert where == "directory" or found.buffers[0] is segment
