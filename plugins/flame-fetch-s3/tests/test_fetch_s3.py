"""Packages in a bucket: the contract, against a local S3 server."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from flame_fetch_s3.s3_store import S3PackageStore

from flame_host.api import StoreError
from flame_host.testing.stores import StoreContract, package

pytest.importorskip("moto")
BUCKET = "packages"


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[object]:
    import boto3

    environment = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "NO_PROXY": "127.0.0.1"}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL_S3", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    client = boto3.client("s3", region_name="us-east-1")
    client.create_bucket(Bucket=BUCKET)
    yield client
    for found in client.list_objects_v2(Bucket=BUCKET).get("Contents", []):
        client.delete_object(Bucket=BUCKET, Key=found["Key"])
    client.delete_bucket(Bucket=BUCKET)
    client.close()


class TestS3Store(StoreContract):
    @pytest.fixture
    def store(self) -> S3PackageStore:
        return S3PackageStore()

    @pytest.fixture
    def location(self, bucket: object) -> str:
        return f"s3://{BUCKET}/apps/main"


@pytest.mark.parametrize("url", ["s3://", "s3://bucket", "s3://bucket/", "s3:///key", "s3://bucket/key?x=1", "http://bucket/key"])
def test_a_url_that_names_no_object_is_refused(url: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="s3://bucket/prefix/name"):
        S3PackageStore().fetch(url, tmp_path / "target", size_limit=1, deadline=1)


def test_a_server_that_is_not_there_is_a_store_error_within_the_deadline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "x", "AWS_SECRET_ACCESS_KEY": "x"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with pytest.raises(StoreError):
        S3PackageStore().fetch("s3://packages/p.zip", tmp_path / "target", size_limit=1, deadline=1)
    assert not (tmp_path / "target").exists()


def test_an_object_without_our_metadata_is_compared_by_content(bucket: object, tmp_path: Path) -> None:
    source, digest = package(tmp_path, b"same")
    bucket.put_object(Bucket=BUCKET, Key="p.zip", Body=b"same")  # type: ignore[attr-defined]
    assert S3PackageStore().publish(source, f"s3://{BUCKET}", name="p.zip", digest=digest) == f"s3://{BUCKET}/p.zip"
    for other in (b"diff", b"longer"):
        source, digest = package(tmp_path, other)
        with pytest.raises(StoreError, match="another package"):
            S3PackageStore().publish(source, f"s3://{BUCKET}", name="p.zip", digest=digest)


def test_the_same_content_is_not_uploaded_again(bucket: object, tmp_path: Path) -> None:
    source, digest = package(tmp_path, b"same")
    S3PackageStore().publish(source, f"s3://{BUCKET}/a", name="p.zip", digest=digest)
    before = bucket.head_object(Bucket=BUCKET, Key="a/p.zip")  # type: ignore[attr-defined]
    assert before["Metadata"] == {"flame-digest": hashlib.sha256(b"same").hexdigest()}
    bucket.put_object(Bucket=BUCKET, Key="a/p.zip", Body=b"mark", Metadata=before["Metadata"])  # type: ignore[attr-defined]
    S3PackageStore().publish(source, f"s3://{BUCKET}/a", name="p.zip", digest=digest)
    assert bucket.get_object(Bucket=BUCKET, Key="a/p.zip")["Body"].read() == b"mark"  # type: ignore[attr-defined]
