"""The flight cache against a server by the rules of Flame's; with FLAME_E2E_CACHE_ENDPOINT set, against what answers there, too."""

from __future__ import annotations

import hashlib
import os
import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pyarrow
import pytest
from flame_cache_flight.flight_cache import FlightCache
from flame_cache_flight.objects import FlightObjects
from flame_cache_flight.packages import FlightPackages

from flame_host.api import (
    Buffer,
    CacheError,
    ObjectNotFoundError,
    ObjectRef,
    PackageNotFoundError,
    Payload,
    Store,
    StoreError,
    buffer_view,
)
from flame_host.testing.caches import CacheContract

sys.path.insert(0, str(Path(__file__).parent))
from flight_server import FlightServer

REAL = os.environ.get("FLAME_E2E_CACHE_ENDPOINT", "")


@pytest.fixture
def server() -> Iterator[FlightServer]:
    with FlightServer() as server:
        yield server


@pytest.fixture
def objects(server: FlightServer) -> Iterator[FlightObjects]:
    objects = FlightCache().open(server.endpoint)
    assert isinstance(objects, FlightObjects)
    yield objects
    objects.close()


class TestFlightCache(CacheContract):
    @pytest.fixture
    def cache(self) -> FlightCache:
        return FlightCache()

    @pytest.fixture
    def endpoint(self, server: FlightServer) -> str:
        return server.endpoint


def encoded(value: object) -> Payload:
    buffers: list[Buffer] = []
    data = pickle.dumps(value, 5, buffer_callback=lambda buffer: buffers.append(buffer.raw()))
    return Payload("cloudpickle/1", data, tuple(buffers))


def decoded(payload: Payload) -> object:
    return pickle.loads(payload.data, buffers=[buffer_view(buffer) for buffer in payload.buffers])


@pytest.mark.parametrize("endpoint", ["", "grpc://", "http://localhost:1", "grpc://h:port", "localhost:9090"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(CacheError):
        FlightCache().open(endpoint)


def test_a_server_that_is_not_there_is_told_with_its_endpoint() -> None:
    objects = FlightCache().open("grpc://127.0.0.1:1")
    with pytest.raises(CacheError, match=r"127\.0\.0\.1:1 cannot be reached"):
        objects.get(ObjectRef(objects.endpoint, "app/session/x"))
    objects.close()


def test_a_server_that_cannot_compare_refuses_a_comparing_update() -> None:
    with FlightServer(compares=False) as server:
        objects = FlightCache().open(server.endpoint)
        ref = objects.put("app/session/x", encoded(1))
        with pytest.raises(CacheError, match="cannot compare"):
            objects.update(ref, encoded(2), if_version=1)
        assert decoded(objects.get(ref)) == 1
        objects.close()


def test_what_has_not_changed_is_not_sent_again(objects: FlightObjects, server: FlightServer) -> None:
    ref = objects.put("app/session/x", encoded(list(range(100))))
    assert [decoded(objects.get(ref)) for _ in range(3)] == [list(range(100))] * 3
    assert server.full == 1
    newer = objects.update(ref, encoded("new"))
    assert decoded(objects.get(newer)) == "new"


def test_patches_come_one_after_another_and_only_once(objects: FlightObjects) -> None:
    ref = objects.put("app/session/x", encoded([1]))
    assert [decoded(part) for part in objects.parts(ref)] == [[1]]
    objects.patch(ref, encoded([2]))
    assert objects.patch(ref, encoded([3])).version == 3
    assert [decoded(part) for part in objects.parts(ref)] == [[1], [2], [3]]
    with pytest.raises(CacheError, match="2 patches"):
        objects.get(replace(ref, version=0))


def test_arrays_and_tables_are_not_copied_on_their_way(objects: FlightObjects) -> None:
    array, table = numpy.arange(1 << 17), pyarrow.table({"a": list(range(50_000))})
    for value in (array, table):
        payload = encoded(value)
        assert payload.buffers
        got = objects.get(objects.put("app/session", payload))
        assert len(got.data) < 10_000
        assert all(buffer_view(buffer).readonly for buffer in got.buffers)
        result = decoded(got)
        assert numpy.array_equal(result, array) if value is array else result == table


@pytest.mark.parametrize("kind", ["pickle", "untagged", "array", "table", "native"])
def test_what_a_clusters_own_clients_have_stored_can_be_read(objects: FlightObjects, kind: str) -> None:
    from flame_cache_flight.objects import put_batches
    from flame_cache_flight.rows import row_of
    from pyarrow import flight

    table = pyarrow.table({"a": [1, 2, 3]})
    sink = pyarrow.BufferOutputStream()
    if kind == "array":
        pyarrow.ipc.write_tensor(pyarrow.Tensor.from_numpy(numpy.arange(10.0)), sink)
    else:
        with pyarrow.ipc.new_stream(sink, table.schema) as out:
            out.write_table(table)
    body = sink.getvalue().to_pybytes()
    stored = {
        "pickle": row_of(b"FLM\x00" + pickle.dumps({"a": 1})), "untagged": row_of(pickle.dumps({"a": 1})),
        "array": row_of(b"FLM\x01" + body),
        "table": row_of(b"FLM\x02" + body),
        "native": table.replace_schema_metadata({"flame.cache.format": "arrow-table-v1", "flame.cache.version": "0"}).to_batches()[0],
    }[kind]  # fmt: skip
    ref = put_batches(objects._client, flight.FlightDescriptor.for_path("app/session"), stored.schema, iter((stored,)))
    value = decoded(objects.get(ref))
    if kind == "array":
        assert isinstance(value, numpy.ndarray)
        assert value.tolist() == list(range(10))
    else:
        assert value == ({"a": 1} if kind in ("pickle", "untagged") else table)


class TestPackages:
    @pytest.fixture
    def package(self, tmp_path: Path) -> Path:
        path = tmp_path / "app.tar.gz"
        path.write_bytes(os.urandom(2_500_000))
        return path

    def test_a_package_that_is_not_there_is_not_found(self, server: FlightServer, tmp_path: Path) -> None:
        with pytest.raises(PackageNotFoundError):
            FlightPackages().fetch(f"{server.endpoint}/app/pkg/none.tar.gz", tmp_path / "x", size_limit=10, deadline=10)

    def test_a_package_is_fetched_as_it_was_published_up_to_a_limit(self, server: FlightServer, package: Path, tmp_path: Path) -> None:
        store = FlightPackages()
        assert isinstance(store, Store)
        digest = hashlib.sha256(package.read_bytes()).hexdigest()
        url = store.publish(package, f"{server.endpoint}/app/pkg", name="app-1.tar.gz", digest=digest)
        assert url == f"{server.endpoint}/app/pkg/app-1.tar.gz"
        store.fetch(url, tmp_path / "got", size_limit=1 << 30, deadline=30)
        assert (tmp_path / "got").read_bytes() == package.read_bytes()
        with pytest.raises(StoreError, match="more than"):
            store.fetch(url, tmp_path / "large", size_limit=1000, deadline=30)
        assert store.publish(package, f"{server.endpoint}/app/pkg", name="app-1.tar.gz", digest=digest) == url
        with pytest.raises(StoreError, match="another file"):
            store.publish(package, f"{server.endpoint}/app/pkg", name="app-1.tar.gz", digest="0" * 64)
        store.delete(url)
        store.delete(url)
        with pytest.raises(PackageNotFoundError):
            store.fetch(url, tmp_path / "gone", size_limit=1 << 30, deadline=30)


@pytest.mark.skipif(not REAL, reason="FLAME_E2E_CACHE_ENDPOINT is not set: no cache of a real cluster to try")
class TestRealCache:
    @pytest.fixture
    def objects(self) -> Iterator[FlightObjects]:
        objects = FlightCache().open(REAL)
        assert isinstance(objects, FlightObjects)
        yield objects
        objects.delete("flight-test/*")
        objects.close()

    def test_objects_survive_versions_patches_and_deletion(self, objects: FlightObjects) -> None:
        with pytest.raises(ObjectNotFoundError):
            objects.get(ObjectRef(objects.endpoint, "flight-test/session/nothing"))
        array = numpy.arange(1 << 18)
        ref = objects.put("flight-test/session", encoded(array))
        assert numpy.array_equal(decoded(objects.get(ref)), array)  # type: ignore[arg-type]
        newer = objects.update(ref, encoded("new"))
        assert newer.version == 2
        assert decoded(objects.get(newer)) == "new"
        assert objects.patch(newer, encoded("more")).version == 3
        assert [decoded(part) for part in objects.parts(newer)] == ["new", "more"]
        with pytest.raises(CacheError, match="cannot compare"):
            objects.update(ref, encoded("x"), if_version=2)
        assert objects.delete(ref.key) == 1
        assert objects.delete(ref.key) == 0

    def test_packages_survive(self, objects: FlightObjects, tmp_path: Path) -> None:
        (tmp_path / "a.tar.gz").write_bytes(b"\xab" * 3_000_000)
        store = FlightPackages()
        url = store.publish(tmp_path / "a.tar.gz", f"{REAL}/flight-test/pkg", name="a.tar.gz", digest="1" * 64)
        store.fetch(url, tmp_path / "b", size_limit=1 << 30, deadline=30)
        assert (tmp_path / "b").read_bytes() == b"\xab" * 3_000_000
        store.delete(url)
