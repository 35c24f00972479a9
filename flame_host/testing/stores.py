"""What every store must do. Inherit, and say which store and where::

class TestMyStore(StoreContract):
    @pytest.fixture
    def store(self): return MyStore()

    @pytest.fixture
    def location(self, tmp_path): return tmp_path.as_uri()
"""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from flame_host.api import PackageError, PackageNotFoundError, Store, StoreError

_LIMIT = 1 << 30
_DEADLINE = 30.0


def package(directory: Path, content: bytes, name: str = "source") -> tuple[Path, str]:
    """A file with that content, and its digest."""
    path = directory / name
    path.write_bytes(content)
    return path, hashlib.sha256(content).hexdigest()


class StoreContract:
    """The contract of `flame_host.api.Store`."""

    @pytest.fixture
    def store(self) -> Store:
        """The store under test."""
        raise NotImplementedError

    @pytest.fixture
    def location(self) -> str:
        """URL of an empty place to publish to; what is made there, the fixture removes."""
        raise NotImplementedError

    def fetched(self, store: Store, url: str, directory: Path) -> bytes:
        target = directory / "fetched"
        target.unlink(missing_ok=True)
        store.fetch(url, target, size_limit=_LIMIT, deadline=_DEADLINE)
        return target.read_bytes()

    def test_it_keeps_the_protocol(self, store: Store, location: str) -> None:
        assert isinstance(store, Store)
        assert store.schemes
        assert all(scheme == scheme.lower() for scheme in store.schemes)
        assert location.partition(":")[0] in store.schemes

    def test_fetching_what_is_not_there_is_package_not_found(self, store: Store, location: str, tmp_path: Path) -> None:
        with pytest.raises(PackageNotFoundError):
            store.fetch(f"{location.rstrip('/')}/nothing.tar.gz", tmp_path / "target", size_limit=_LIMIT, deadline=_DEADLINE)
        assert not (tmp_path / "target").exists()

    def test_a_package_above_the_size_limit_is_refused_and_leaves_nothing(self, store: Store, location: str, tmp_path: Path) -> None:
        source, digest = package(tmp_path, b"x" * 5000)
        url = store.publish(source, location, name="big.tar.gz", digest=digest)
        with pytest.raises(StoreError):
            store.fetch(url, tmp_path / "target", size_limit=4999, deadline=_DEADLINE)
        assert not (tmp_path / "target").exists()
        store.fetch(url, tmp_path / "target", size_limit=5000, deadline=_DEADLINE)

    def test_a_deadline_that_is_over_stops_the_fetch(self, store: Store, location: str, tmp_path: Path) -> None:
        source, digest = package(tmp_path, b"x" * 5000)
        url = store.publish(source, location, name="late.tar.gz", digest=digest)
        with pytest.raises(StoreError):
            store.fetch(url, tmp_path / "target", size_limit=_LIMIT, deadline=1e-6)
        assert not (tmp_path / "target").exists()

    def test_an_existing_target_is_not_written_over(self, store: Store, location: str, tmp_path: Path) -> None:
        source, digest = package(tmp_path, b"new")
        url = store.publish(source, location, name="p.tar.gz", digest=digest)
        target, _ = package(tmp_path, b"precious", "target")
        with pytest.raises(StoreError):
            store.fetch(url, target, size_limit=_LIMIT, deadline=_DEADLINE)
        assert target.read_bytes() == b"precious"

    def test_another_content_under_the_same_name_is_refused(self, store: Store, location: str, tmp_path: Path) -> None:
        for first, second in ((b"one", b"two"), (b"short", b"much longer")):
            source, digest = package(tmp_path, first)
            other, other_digest = package(tmp_path, second, "other")
            url = store.publish(source, location, name=f"{first.decode()}.tar.gz", digest=digest)
            with pytest.raises(StoreError):
                store.publish(other, location, name=f"{first.decode()}.tar.gz", digest=other_digest)
            assert self.fetched(store, url, tmp_path) == first

    def test_a_source_that_does_not_have_its_digest_is_not_published(self, store: Store, location: str, tmp_path: Path) -> None:
        source, _ = package(tmp_path, b"changed since")
        with pytest.raises(PackageError):
            store.publish(source, location, name="p.tar.gz", digest=hashlib.sha256(b"as it was").hexdigest())
        with pytest.raises(PackageNotFoundError):
            store.fetch(f"{location.rstrip('/')}/p.tar.gz", tmp_path / "target", size_limit=_LIMIT, deadline=_DEADLINE)

    @pytest.mark.parametrize("name", ["", "a/b", "../up", "..", "."])
    def test_a_name_that_is_no_single_component_is_refused(self, store: Store, location: str, tmp_path: Path, name: str) -> None:
        source, digest = package(tmp_path, b"x")
        with pytest.raises(StoreError):
            store.publish(source, location, name=name, digest=digest)

    @pytest.mark.parametrize("content", [b"", b"x", bytes(range(256)) * 9000], ids=["empty", "one byte", "2 MiB"])
    def test_what_is_published_is_what_is_fetched(self, store: Store, location: str, tmp_path: Path, content: bytes) -> None:
        source, digest = package(tmp_path, content)
        url = store.publish(source, location, name="app-1.0.tar.gz", digest=digest)
        assert self.fetched(store, url, tmp_path) == content
        assert source.read_bytes() == content

    @pytest.mark.parametrize("name", ["with space.zip", "prozent%41.zip", "übung.zip", "a+b=c.zip"])
    def test_unusual_names_survive(self, store: Store, location: str, tmp_path: Path, name: str) -> None:
        source, digest = package(tmp_path, name.encode())
        assert self.fetched(store, store.publish(source, location, name=name, digest=digest), tmp_path) == name.encode()

    def test_publishing_the_same_content_again_gives_the_same_url(self, store: Store, location: str, tmp_path: Path) -> None:
        source, digest = package(tmp_path, b"same")
        urls = {store.publish(source, location, name="p.tar.gz", digest=digest) for _ in range(3)}
        assert len(urls) == 1

    def test_overwriting_replaces_the_content(self, store: Store, location: str, tmp_path: Path) -> None:
        source, digest = package(tmp_path, b"one, and long")
        store.publish(source, location, name="p.tar.gz", digest=digest)
        source, digest = package(tmp_path, b"two")
        url = store.publish(source, location, name="p.tar.gz", digest=digest, overwrite=True)
        assert self.fetched(store, url, tmp_path) == b"two"

    def test_of_many_publishers_at_once_one_wins_and_none_mixes(self, store: Store, location: str, tmp_path: Path) -> None:
        sources = [package(tmp_path, bytes([number]) * 300_000, f"source{number}") for number in range(6)]

        def publish(number: int) -> str | None:
            try:
                return store.publish(sources[number][0], location, name="race.tar.gz", digest=sources[number][1])
            except StoreError:
                return None

        with ThreadPoolExecutor(6) as pool:
            urls = list(pool.map(publish, range(6)))
        winners = [number for number, url in enumerate(urls) if url is not None]
        assert winners
        content = self.fetched(store, next(url for url in urls if url), tmp_path)
        assert content in [sources[number][0].read_bytes() for number in winners]

    def test_deleting_removes_and_deleting_again_is_no_error(self, store: Store, location: str, tmp_path: Path) -> None:
        source, digest = package(tmp_path, b"x")
        url = store.publish(source, location, name="p.tar.gz", digest=digest)
        store.delete(url)
        store.delete(url)
        with pytest.raises(PackageNotFoundError):
            store.fetch(url, tmp_path / "target", size_limit=_LIMIT, deadline=_DEADLINE)
