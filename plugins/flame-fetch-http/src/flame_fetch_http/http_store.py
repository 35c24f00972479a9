"""Packages on an HTTP server that takes PUT, GET, HEAD and DELETE."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote, urlsplit

from flame_host.api import DigestMismatchError, FlameError, PackageNotFoundError, StoreError

if TYPE_CHECKING:
    from flame_fetch_http.transfer import Answer, Transfer

DIGEST_HEADER = "X-Flame-Digest"
"""Sent with an upload as ``sha256:<hex>``. A server that gives it back on HEAD spares the comparison of contents."""

_PUBLISH_SECONDS = 900.0
_DELETE_SECONDS = 60.0
_CHUNK = 1 << 20
_GONE = (404, 410)


class HttpStore:
    """Serves ``http://`` and ``https://``.

    Uploads ask with ``If-None-Match: *`` not to replace anything, and are measured afterwards; what is wrong is removed. Whether the
    content that stands there is the same is told by `DIGEST_HEADER`, else by reading it: no other header, and no file beside it, is
    sure to be as old as the content.
    """

    schemes = ("http", "https")

    def publish(self, source: Path, location: str, *, name: str, digest: str, overwrite: bool = False) -> str:
        url = _join(location, name)
        if _digest_of(source) != digest:
            raise DigestMismatchError(f"{source} does not have the SHA-256 {digest}; it was not published")
        with _transfer(_PUBLISH_SECONDS) as transfer:
            there = self._same(transfer, url, source, digest)
            if there:
                return url
            if there is False and not overwrite:
                raise _taken(url)
            self._put(transfer, url, source, digest, replace=overwrite, absent=there is None)
        return url

    def _put(self, transfer: Transfer, url: str, source: Path, digest: str, *, replace: bool, absent: bool) -> None:
        headers = {"Content-Type": "application/octet-stream", DIGEST_HEADER: f"sha256:{digest}"}
        if not replace:
            headers["If-None-Match"] = "*"
        try:
            answer = transfer.send("PUT", url, headers=headers, body=source)
            if 200 <= answer.status < 300:
                self._measure(transfer, url, source)
                return
        except StoreError:
            if absent:
                self._clear_away(transfer, url, source)
            raise
        if answer.status not in (409, 412) or replace:
            raise _refused("PUT", url, answer)
        # Somebody was quicker, or it was our own first attempt, whose answer was lost.
        if not self._same(transfer, url, source, digest):
            raise _taken(url)

    def _clear_away(self, transfer: Transfer, url: str, source: Path) -> None:
        """Remove what a broken upload left on a server that keeps such things; a whole package would be somebody else's."""
        with contextlib.suppress(StoreError):
            answer = transfer.send("HEAD", url, attempts=1, extra_seconds=5.0)
            length = answer.headers.get("Content-Length", "")
            if answer.status == 200 and _is_number(length) and int(length) < source.stat().st_size:
                transfer.send("DELETE", url, attempts=1, extra_seconds=5.0)

    def _measure(self, transfer: Transfer, url: str, source: Path) -> None:
        answer = transfer.send("HEAD", url)
        length = answer.headers.get("Content-Length", "")
        if (
            answer.status == 200
            and _is_number(length)
            and int(length) != source.stat().st_size
            and "Content-Encoding" not in answer.headers
        ):
            raise StoreError(f"{transfer.shown(url)} has {length} bytes after an upload of {source.stat().st_size}")

    def _same(self, transfer: Transfer, url: str, source: Path, digest: str) -> bool | None:
        """Whether that very content stands there; None when nothing does."""
        answer = transfer.send("HEAD", url)
        if answer.status in _GONE:
            return None
        if answer.status in (401, 403):
            raise _refused("HEAD", url, answer)
        told = answer.headers.get(DIGEST_HEADER, "")
        if answer.status == 200 and told.startswith("sha256:"):
            return told[len("sha256:") :].lower() == digest
        size = source.stat().st_size
        length = answer.headers.get("Content-Length", "")
        if answer.status == 200 and _is_number(length) and int(length) != size and "Content-Encoding" not in answer.headers:
            return False
        found, hasher = transfer.hash(url, size_limit=size)
        return None if found is None else found and hasher == digest

    def fetch(self, url: str, target: Path, *, size_limit: int, deadline: float) -> None:
        try:
            target.open("xb").close()
        except OSError as error:
            raise StoreError(f"cannot write {target}: {error.strerror}") from error
        with _transfer(deadline) as transfer:
            try:
                answer = transfer.download(url, target, size_limit=size_limit)
                if answer.status in _GONE:
                    raise PackageNotFoundError(f"there is no package at {transfer.shown(url)}", hint="publish it, or check the URL")
                if answer.status != 200:
                    raise _refused("GET", url, answer)
            except BaseException:
                target.unlink(missing_ok=True)
                raise

    def delete(self, url: str) -> None:
        with _transfer(_DELETE_SECONDS) as transfer:
            answer = transfer.send("DELETE", url)
            if answer.status not in _GONE and not 200 <= answer.status < 300:
                raise _refused("DELETE", url, answer)


@contextlib.contextmanager
def _transfer(seconds: float) -> Iterator[Transfer]:
    from flame_fetch_http.transfer import Transfer  # imports httpx

    with Transfer(seconds) as transfer:
        try:
            yield transfer
        except FlameError:
            raise
        except ValueError as error:
            raise StoreError(f"no URL to ask: {error}") from error


def _is_number(text: str) -> bool:
    from flame_fetch_http.transfer import is_number

    return is_number(text)


def _join(location: str, name: str) -> str:
    if not name or "/" in name or name in (".", ".."):
        raise StoreError(f"{name!r} cannot be the name of a package", hint="use one path component")
    try:
        parts = urlsplit(location)
    except ValueError as error:
        raise StoreError(f"{location} is no URL: {error}") from error
    if parts.query or parts.fragment:
        raise StoreError(f"{location} has a query or a fragment, which a place for packages cannot have")
    return f"{location.rstrip('/')}/{quote(name)}"


def _digest_of(path: Path) -> str:
    hasher = hashlib.sha256()
    with path.open("rb") as reader:
        while chunk := reader.read(_CHUNK):
            hasher.update(chunk)
    return hasher.hexdigest()


def _taken(url: str) -> StoreError:
    return StoreError(f"{url} holds another package of that name", hint="publish under another name, or ask for overwrite=True")


def _refused(method: str, url: str, answer: Answer) -> StoreError:
    hints = {
        401: "put credentials into ~/.netrc",
        403: "the server does not let you do this there",
        405: f"the server does not take {method}: is this a place for packages?",
        413: "the package is larger than the server takes",
        507: "the server has no room left",
    }
    return StoreError(f"{method} {answer.url} was answered with status {answer.status}", hint=hints.get(answer.status, ""))
