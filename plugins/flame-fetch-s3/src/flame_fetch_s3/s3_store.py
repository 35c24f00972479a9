"""Packages in an S3 bucket, or in anything that speaks S3."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from flame_host.api import DigestMismatchError, PackageNotFoundError, StoreError

if TYPE_CHECKING:
    from obstore.store import S3Store

DIGEST_KEY = "flame-digest"
"""Metadata of the object (``x-amz-meta-flame-digest``): SHA-256 of its content. S3 stores it in one step with the content."""

_PUBLISH_SECONDS = 900.0
_DELETE_SECONDS = 60.0
_SINGLE_PUT = 256 << 20
_CHUNK = 4 << 20
_ATTEMPTS = 4


class S3PackageStore:
    """Serves ``s3://bucket/prefix/name``.

    Endpoint, region and credentials are those of the environment: ``AWS_ENDPOINT_URL_S3`` or ``AWS_ENDPOINT_URL``, ``AWS_REGION``,
    ``AWS_ACCESS_KEY_ID`` …, or the machine's role. An object appears whole or not at all. Up to 256 MiB it is put on condition that
    nothing stands there; larger ones go in parts, which S3 does not take conditionally, and then the check before is all there is.
    """

    schemes = ("s3",)

    def publish(self, source: Path, location: str, *, name: str, digest: str, overwrite: bool = False) -> str:
        if not name or "/" in name or name in (".", ".."):
            raise StoreError(f"{name!r} cannot be the name of a package", hint="use one path component")
        if _digest_of(source) != digest:
            raise DigestMismatchError(f"{source} does not have the SHA-256 {digest}; it was not published")
        url = f"{location.rstrip('/')}/{name}"
        with _opened(url, _PUBLISH_SECONDS, f"cannot publish {name} to {location}") as (store, key):
            there = _same(store, key, digest, source.stat().st_size)
            if there:
                return url
            if there is False and not overwrite:
                raise _taken(url)
            self._put(store, key, url, source, digest, overwrite)
        return url

    def _put(self, store: S3Store, key: str, url: str, source: Path, digest: str, overwrite: bool) -> None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        attributes = {"Content-Type": "application/octet-stream", DIGEST_KEY: digest}
        if overwrite or source.stat().st_size > _SINGLE_PUT:
            obstore.put(store, key, source, attributes=attributes)
            return
        try:
            obstore.put(store, key, source, attributes=attributes, mode="create", use_multipart=False)
        except (AlreadyExistsError, PreconditionError) as error:
            # Somebody was quicker, or it was our own first attempt, whose answer was lost.
            if not _same(store, key, digest, source.stat().st_size):
                raise _taken(url) from error

    def fetch(self, url: str, target: Path, *, size_limit: int, deadline: float) -> None:
        until = time.monotonic() + deadline
        try:
            writer = target.open("xb")
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror}") from error
        with writer:
            try:
                with _opened(url, deadline, f"cannot fetch {url}") as (store, key):
                    self._download(store, key, url, writer, size_limit, until)
            except BaseException:
                target.unlink(missing_ok=True)
                raise

    def _download(self, store: S3Store, key: str, url: str, writer: Any, size_limit: int, until: float) -> None:
        import obstore
        from obstore.exceptions import GenericError

        for attempt in range(1, _ATTEMPTS + 1):
            writer.seek(0)
            writer.truncate()
            try:
                found = obstore.get(store, key)
                if found.meta["size"] > size_limit:
                    raise StoreError(f"{url} has {found.meta['size']} bytes, more than the {size_limit} allowed")
                seen = 0
                for chunk in found.stream(min_chunk_size=_CHUNK):
                    seen += len(chunk)
                    if time.monotonic() > until:
                        raise StoreError(f"{url} was not fetched within its deadline; {seen} bytes had come")
                    if seen > size_limit:
                        raise StoreError(f"{url} has more than the {size_limit} bytes allowed")
                    writer.write(chunk)
                if seen == found.meta["size"]:
                    return
                problem = f"{seen} bytes came instead of {found.meta['size']}"
            except GenericError as error:  # the connection broke; what obstore itself repeats is only the request, not the body
                problem = _first_line(error)
            pause = random.uniform(0, 0.2 * 2**attempt)
            if attempt == _ATTEMPTS or time.monotonic() + pause > until:
                raise StoreError(f"cannot fetch {url} within its deadline, last: {problem}")
            time.sleep(pause)

    def delete(self, url: str) -> None:
        import obstore

        with _opened(url, _DELETE_SECONDS, f"cannot delete {url}") as (store, key):
            with contextlib.suppress(FileNotFoundError):
                obstore.delete(store, key)


def _same(store: S3Store, key: str, digest: str, size: int) -> bool | None:
    """Whether that very content stands there; None when nothing does."""
    import obstore

    try:
        found = obstore.get(store, key, options={"head": True})
    except FileNotFoundError:
        return None
    told = found.attributes.get(DIGEST_KEY)
    if told:
        return told == digest
    if found.meta["size"] != size:
        return False
    hasher = hashlib.sha256()
    for chunk in obstore.get(store, key).stream(min_chunk_size=_CHUNK):
        hasher.update(chunk)
    return hasher.hexdigest() == digest


@contextlib.contextmanager
def _opened(url: str, seconds: float, what: str) -> Iterator[tuple[S3Store, str]]:
    """The bucket and the key within it; obstore's errors become the project's."""
    from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError
    from obstore.store import S3Store

    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreError(f"{url!r:.200} is no URL: {error}") from error
    key = parts.path.lstrip("/")
    if parts.scheme != "s3" or not parts.netloc or not key or parts.query or parts.fragment:
        raise StoreError(f"{url} does not name an object in a bucket", hint="write s3://bucket/prefix/name")
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    limit = timedelta(seconds=max(0.001, seconds))
    config: dict[str, Any] = {"endpoint": endpoint} if endpoint else {}
    if not any(os.environ.get(name) for name in ("AWS_REGION", "AWS_DEFAULT_REGION")):
        config["region"] = "us-east-1"
    try:
        store = S3Store(
            parts.netloc,
            client_options={
                "timeout": limit,
                "connect_timeout": min(limit, timedelta(seconds=10)),
                "allow_http": endpoint.startswith("http:"),
            },
            retry_config={"max_retries": 5, "retry_timeout": limit},
            **config,
        )
        yield store, key
    except FileNotFoundError as error:
        raise PackageNotFoundError(f"there is no package at {url}", hint="publish it, or check bucket and key") from error
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise StoreError(f"{what}: {_first_line(error)}", hint="check AWS_ACCESS_KEY_ID and what its owner may do") from error
    except (BaseError, OSError) as error:
        raise StoreError(f"{what}: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().partition("\n")[0]


def _digest_of(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as reader:
        while chunk := reader.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _taken(url: str) -> StoreError:
    return StoreError(f"{url} holds another package of that name", hint="publish under another name, or ask for overwrite=True")
