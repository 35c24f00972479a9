"""Packages on an HTTP server: the contract, and every way a server can misbehave."""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flame_fetch_http.http_store import HttpStore

from flame_host.api import PackageNotFoundError, StoreError
from flame_host.testing.stores import StoreContract, package


def _load_server() -> Any:
    """Tests are imported without their directory on the path."""
    path = Path(__file__).with_name("misbehaving_server.py")
    spec = importlib.util.spec_from_file_location("misbehaving_server", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


misbehaving = _load_server()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    before = set(threading.enumerate())
    with misbehaving.serving() as server:
        yield server
    assert set(threading.enumerate()) <= before


class TestHttpStore(StoreContract):
    @pytest.fixture
    def store(self) -> HttpStore:
        return HttpStore()

    @pytest.fixture
    def location(self, server: Any) -> str:
        return f"{server.url}/ok/packages"


class TestHttpStoreOnADumbServer(TestHttpStore):
    """A server that neither keeps our header nor heeds conditions: contents are compared by reading them."""

    @pytest.fixture
    def location(self, server: Any) -> str:
        return f"{server.url}/dumb/packages"

    def test_of_many_publishers_at_once_one_wins_and_none_mixes(self, store: Any, location: str, tmp_path: Path) -> None:
        pytest.skip("without conditions the last one wins, as the README says")


def fetch(server: Any, path: str, target: Path, size_limit: int = 1 << 20, deadline: float = 20.0) -> bytes:
    HttpStore().fetch(f"{server.url}{path}", target, size_limit=size_limit, deadline=deadline)
    return target.read_bytes()


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/forbidden/p.zip", "status 403"),
        ("/always-500/p.zip", "failed 5 times, last with status 500"),
        ("/always-short/p.zip", "failed 5 times"),
        ("/garbage/p.zip", "failed 5 times"),
        ("/endless/p.zip", "more than the 1048576 allowed|more than the 1048576 bytes allowed"),
        ("/lies-about-size/p.zip", "more than the 1048576 allowed"),
        ("/partial/p.zip", "status 206"),
        ("/redirect-loop/p.zip", "redirects more than 5 times"),
        ("/redirect-https/p.zip", "another scheme"),
        ("/redirect-file/p.zip", "another scheme"),
        ("/brotli/p.zip", "content encoding 'br'"),
        ("/broken-gzip/p.zip", "labelled as gzip and is not"),
        ("/gzip-bomb/p.zip", "once its content encoding is undone"),
    ],
)
def test_a_server_that_misbehaves_is_a_store_error_and_leaves_nothing(server: Any, tmp_path: Path, path: str, reason: str) -> None:
    with pytest.raises(StoreError, match=reason):
        fetch(server, path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("fault", ["drips-body", "drips-headers", "silent", "always-500", "retry-after-an-hour"])
def test_the_deadline_is_for_the_whole_transfer(server: Any, tmp_path: Path, fault: str) -> None:
    start = time.monotonic()
    with pytest.raises(StoreError, match="deadline"):
        fetch(server, f"/{fault}/p.zip", tmp_path / "target", deadline=0.6)
    assert time.monotonic() - start < 2.0
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("path", ["/twice-503/p.zip", "/once-short/p.zip", "/once-closed/p.zip"])
def test_what_may_work_the_next_time_is_tried_again(server: Any, tmp_path: Path, path: str) -> None:
    assert fetch(server, path, tmp_path / "target") == misbehaving.CONTENT


def test_what_cannot_work_the_next_time_is_not_tried_again(server: Any, tmp_path: Path) -> None:
    for path in ("/forbidden/p.zip", "/nowhere/p.zip"):
        with pytest.raises((StoreError, PackageNotFoundError)):
            fetch(server, path, tmp_path / "target")
        assert server.requests[f"GET {path}"] == 1


def test_a_server_that_is_not_there_is_a_store_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(StoreError):
        HttpStore().fetch("http://127.0.0.1:9/p.zip", tmp_path / "target", size_limit=1, deadline=1)
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("url", ["http://", "http:///p.zip", "http://127.0.0.1:port/p.zip", "nonsense"])
def test_a_url_that_is_none_is_a_store_error(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        HttpStore().fetch(url, tmp_path / "target", size_limit=1, deadline=1)


def test_passwords_do_not_show_in_errors(server: Any, tmp_path: Path) -> None:
    with pytest.raises(StoreError) as caught:
        HttpStore().fetch(f"{server.url.replace('//', '//me:secret@')}/forbidden/p.zip", tmp_path / "t", size_limit=1, deadline=5)
    assert "secret" not in str(caught.value)


def test_redirects_within_the_scheme_are_followed(server: Any, tmp_path: Path) -> None:
    assert fetch(server, "/redirect/p.tar.gz", tmp_path / "target") == misbehaving.CONTENT
    source, digest = package(tmp_path, b"uploaded")
    HttpStore().publish(source, f"{server.url}/redirect-put", name="p.zip", digest=digest)
    assert server.stored["/ok/p.zip"] == b"uploaded"


def test_a_content_encoding_never_corrupts_the_package(server: Any, tmp_path: Path) -> None:
    assert fetch(server, "/gzip-labelled/p.tar.gz", tmp_path / "one") == gzip.compress(misbehaving.PLAIN, mtime=0)
    assert fetch(server, "/gzip-labelled/p.zip", tmp_path / "two") == misbehaving.PLAIN


@pytest.mark.parametrize(
    ("place", "reason"),
    [("forbidden", "403"), ("read-only", "does not take PUT"), ("full", "no room"), ("always-500", "failed 5 times"),
     ("redirect-put-as-get", "would lose the body"), ("shortens", "bytes after an upload of")],
)  # fmt: skip
def test_a_place_that_does_not_take_packages_is_a_store_error(server: Any, tmp_path: Path, place: str, reason: str) -> None:
    source, digest = package(tmp_path, b"x" * 1000)
    with pytest.raises(StoreError, match=reason):
        HttpStore().publish(source, f"{server.url}/{place}", name="p.zip", digest=digest)
    assert f"/{place}/p.zip" not in server.stored


def test_an_upload_whose_answer_was_lost_is_recognised_as_done(server: Any, tmp_path: Path) -> None:
    source, digest = package(tmp_path, b"x" * 1000)
    url = HttpStore().publish(source, f"{server.url}/forgets-to-answer", name="p.zip", digest=digest)
    assert fetch(server, url[len(server.url) :], tmp_path / "target") == b"x" * 1000


@pytest.mark.parametrize("place", ["ok", "dumb", "headless"])
def test_the_same_content_is_not_uploaded_again(server: Any, tmp_path: Path, place: str) -> None:
    source, digest = package(tmp_path, b"x" * 1000)
    for _ in range(3):
        HttpStore().publish(source, f"{server.url}/{place}", name="p.zip", digest=digest, overwrite=True)
    assert server.requests[f"PUT /{place}/p.zip"] == 1


def test_the_digest_goes_along_with_the_upload(server: Any, tmp_path: Path) -> None:
    source, digest = package(tmp_path, b"x")
    HttpStore().publish(source, f"{server.url}/ok/", name="p.zip", digest=digest)
    assert server.told["/ok/p.zip"] == f"sha256:{hashlib.sha256(b'x').hexdigest()}"
