"""What every cache must do. Inherit, and say which, and where::

class TestMyCache(CacheContract):
    @pytest.fixture
    def cache(self): return MyCache()

    @pytest.fixture
    def endpoint(self): return "mine://somewhere"
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from flame_host.api import (
    Buffer,
    Cache,
    CacheError,
    ClosedError,
    ObjectNotFoundError,
    ObjectRef,
    ObjectStore,
    Payload,
    VersionConflictError,
    buffer_view,
)


def contents(payload: Payload) -> tuple[str, bytes, list[bytes]]:
    """All of a payload, comparable."""
    return payload.format, bytes(payload.data), [bytes(buffer_view(buffer)) for buffer in payload.buffers]


def payload_of(text: str, *buffers: Buffer) -> Payload:
    return Payload("cloudpickle/1", text.encode(), buffers)


class CacheContract:
    """The contract of `flame_host.api.Cache` and `flame_host.api.ObjectStore`."""

    @pytest.fixture
    def cache(self) -> Cache:
        """The cache under test."""
        raise NotImplementedError

    @pytest.fixture
    def endpoint(self) -> str:
        """Where to open it; empty of objects."""
        raise NotImplementedError

    @pytest.fixture
    def objects(self, cache: Cache, endpoint: str) -> Iterator[ObjectStore]:
        objects = cache.open(endpoint)
        yield objects
        objects.close()

    def test_it_keeps_the_protocols(self, cache: Cache, endpoint: str, objects: ObjectStore) -> None:
        assert isinstance(cache, Cache)
        assert isinstance(objects, ObjectStore)
        assert endpoint.partition(":")[0] in cache.schemes

    def test_an_object_that_is_not_there_is_not_found(self, objects: ObjectStore) -> None:
        for action in (objects.get, lambda ref: objects.update(ref, payload_of("x"))):
            with pytest.raises(ObjectNotFoundError):
                action(ObjectRef(objects.endpoint, "app/session/nothing"))

    @pytest.mark.parametrize(
        "key",
        ["", "app", "/", "//", "app//x", "/session/x", "app/session/", "app/session/x/y", "app/../x", "../../x", "app/session/..",
         "app/session/.", "app/ses\\sion/x", "app/session/a\nb", "app/session/\0"],
    )  # fmt: skip
    def test_a_key_that_is_none_is_refused(self, objects: ObjectStore, key: str) -> None:
        with pytest.raises(CacheError):
            objects.put(key, payload_of("x"))
        with pytest.raises(CacheError):
            objects.get(ObjectRef(objects.endpoint, key))
        with pytest.raises(CacheError):
            objects.delete(key)

    def test_an_update_that_expects_another_version_changes_nothing(self, objects: ObjectStore) -> None:
        ref = objects.put("app/session/x", payload_of("one"))
        objects.update(ref, payload_of("two"), if_version=1)
        with pytest.raises(VersionConflictError):
            objects.update(ref, payload_of("three"), if_version=1)
        with pytest.raises(VersionConflictError):
            objects.update(ref, payload_of("three"), if_version=3)
        assert objects.get(replace(ref, version=0)).data == b"two"

    def test_a_version_that_is_not_the_current_one_is_not_answered_with_another(self, objects: ObjectStore) -> None:
        ref = objects.put("app/session/x", payload_of("one"))
        objects.update(ref, payload_of("two"))
        try:
            assert objects.get(ref).data == b"one"  # a cache may keep old versions
        except ObjectNotFoundError:
            pass
        with pytest.raises(ObjectNotFoundError):
            objects.get(replace(ref, version=3))

    def test_a_closed_store_refuses_and_closing_twice_is_fine(self, cache: Cache, endpoint: str) -> None:
        objects = cache.open(endpoint)
        ref = objects.put("app/session", payload_of("x"))
        objects.close()
        objects.close()
        with pytest.raises((ClosedError, CacheError)):
            objects.get(ref)
        with pytest.raises((ClosedError, CacheError)):
            objects.put("app/session", payload_of("x"))

    def test_what_is_put_is_what_is_got(self, objects: ObjectStore) -> None:
        payloads = [
            payload_of(""), payload_of("x" * 100_000), payload_of("data", b"one", b"", bytearray(b"three")),
            payload_of("large", b"\xab" * 1_000_000, memoryview(b"\xcd" * 70_000)), Payload("msgpack/1", b"\x00"),
        ]  # fmt: skip
        for payload in payloads:
            ref = objects.put("app/session", payload)
            assert contents(objects.get(ref)) == contents(payload)
            assert (ref.endpoint, ref.version, ref.format, ref.size) == (objects.endpoint, 1, payload.format, payload.size)

    def test_what_is_got_cannot_be_written_to(self, objects: ObjectStore) -> None:
        ref = objects.put("app/session", payload_of("x", bytearray(100_000)))
        assert buffer_view(objects.get(ref).buffers[0]).readonly

    def test_an_object_does_not_follow_what_happens_to_its_buffers(self, objects: ObjectStore) -> None:
        array = bytearray(b"before" * 20_000)
        ref = objects.put("app/session", payload_of("x", memoryview(array)))
        array[:6] = b"after!"
        assert bytes(buffer_view(objects.get(ref).buffers[0])[:6]) == b"before"

    def test_what_was_got_stays_when_the_object_is_replaced_or_deleted(self, objects: ObjectStore) -> None:
        ref = objects.put("app/session/x", payload_of("x", b"one" * 50_000))
        view = buffer_view(objects.get(ref).buffers[0])
        objects.update(ref, payload_of("y", b"two" * 50_000))
        objects.delete("app/session")
        assert bytes(view[:3]) == b"one"

    def test_a_prefix_gives_fresh_names(self, objects: ObjectStore) -> None:
        refs = [objects.put("app/session", payload_of(str(number))) for number in range(20)]
        assert len({ref.key for ref in refs}) == 20
        assert all(ref.key.startswith("app/session/") and ref.key.count("/") == 2 for ref in refs)
        assert [objects.get(ref).data for ref in refs] == [str(number).encode() for number in range(20)]

    @pytest.mark.parametrize("key", ["app/session/obj", "my app/sess.1/.hidden", "a/b/con:é*?%2F", f"{'a' * 200}/b/{'x' * 250}"])
    def test_unusual_keys_survive(self, objects: ObjectStore, key: str) -> None:
        ref = objects.put(key, payload_of(key))
        assert ref.key == key
        assert objects.get(ref).data == key.encode()
        assert objects.delete(key) == 1

    def test_versions_count_from_one(self, objects: ObjectStore) -> None:
        ref = objects.put("app/session/x", payload_of("one"))
        second = objects.update(ref, payload_of("two"))
        third = objects.put("app/session/x", payload_of("three"))
        assert [ref.version, second.version, third.version] == [1, 2, 3]
        assert objects.get(third).data == objects.get(replace(third, version=0)).data == b"three"

    def test_deleting_counts_what_went(self, objects: ObjectStore) -> None:
        for key in ("a/s1/x", "a/s1/y", "a/s2/x", "a/s3/x", "ab/s1/x"):
            objects.put(key, payload_of(key))
        assert objects.delete("a/s1/x") == 1
        assert objects.delete("a/s1/x") == 0
        assert objects.delete("a/s1") == 1
        assert objects.delete("a/*") == 2
        assert objects.delete("a/*") == 0
        assert objects.delete("no/such") == 0
        assert objects.get(ObjectRef(objects.endpoint, "ab/s1/x")).data == b"ab/s1/x"

    def test_two_openings_see_the_same_objects(self, cache: Cache, endpoint: str, objects: ObjectStore) -> None:
        other = cache.open(endpoint)
        try:
            ref = objects.put("app/session", payload_of("x"))
            assert other.get(ref).data == b"x"
        finally:
            other.close()
        assert objects.get(ref).data == b"x"

    def test_of_many_updates_at_once_each_version_is_given_once(self, objects: ObjectStore) -> None:
        ref = objects.put("app/session/x", payload_of("0"))

        def count_up(_: int) -> int:
            while True:
                current = objects.get(replace(ref, version=0))
                number = int(current.data)
                try:
                    return objects.update(ref, payload_of(str(number + 1)), if_version=number + 1).version
                except VersionConflictError:
                    continue

        with ThreadPoolExecutor(4) as pool:
            versions = list(pool.map(count_up, range(24)))
        assert sorted(versions) == list(range(2, 26))
        assert objects.get(replace(ref, version=0)).data == b"24"

    def test_putting_while_the_session_is_deleted_never_breaks(self, objects: ObjectStore) -> None:
        def put(number: int) -> bool:
            return bool(objects.put("app/session", payload_of(str(number))).key)

        with ThreadPoolExecutor(4) as pool:
            puts = [pool.submit(put, number) for number in range(60)]
            for _ in range(20):
                objects.delete("app/session")
            assert all(future.result() for future in puts)
