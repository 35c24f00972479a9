"""One transfer: requests that share a deadline, are repeated when that can help, and follow redirects with care."""

from __future__ import annotations

import hashlib
import random
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO
from urllib.parse import urljoin, urlsplit, urlunsplit

import httpx

from flame_host.api import StoreError

_ATTEMPTS = 5
_REDIRECTS = 5
_STEP_SECONDS = 30.0
_CHUNK = 1 << 20
_AGAIN = frozenset({408, 425, 429, 500, 502, 503, 504})
_MOVED = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True)
class Answer:
    """Status and headers of the last response; the URL as it may be shown."""

    status: int
    headers: Mapping[str, str]
    url: str


class _Again(Exception):
    """This attempt failed in a way that another may not."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


class Transfer:
    """Use as a context manager; then everything it opened is closed.

    The deadline is for the whole, retries and pauses included. httpx limits each single read, so a server that sends a byte a
    second would never be late: a timer cuts the connection instead.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._until = time.monotonic() + seconds
        self._client = httpx.Client(follow_redirects=False, headers={"Accept-Encoding": "identity", "User-Agent": "flame-host"})
        self._watch = _Watch()

    def __enter__(self) -> Transfer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None) -> None:
        self._client.close()

    def send(
        self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: Path | None = None, attempts: int = _ATTEMPTS,
        extra_seconds: float = 0.0,
    ) -> Answer:  # fmt: skip
        """Ask, and drop the answer's body. ``extra_seconds`` lets a clean-up happen after the deadline."""
        if extra_seconds:
            self._until = max(self._until, time.monotonic() + extra_seconds)
        return self._repeat(method, url, attempts, headers, body, None)

    def download(self, url: str, target: Path, *, size_limit: int) -> Answer:
        """Write the content to a file, over what is there; each attempt begins anew."""

        def take(response: httpx.Response) -> None:
            with target.open("w+b") as writer:
                self._write(response, writer, size_limit)

        return self._repeat("GET", url, _ATTEMPTS, None, None, take)

    def hash(self, url: str, *, size_limit: int) -> tuple[bool | None, str]:
        """SHA-256 of what stands there. False when it is larger than the limit, None when nothing stands there."""
        found: list[str] = []

        def take(response: httpx.Response) -> None:
            hasher, seen = hashlib.sha256(), 0
            found.clear()
            for chunk in self._chunks(response):
                seen += len(chunk)
                if seen > size_limit:
                    return
                hasher.update(chunk)
            found.append(hasher.hexdigest())

        answer = self._repeat("GET", url, _ATTEMPTS, None, None, take)
        if answer.status in (404, 410):
            return None, ""
        return (True, found[0]) if found else (False, "")

    @staticmethod
    def shown(url: str) -> str:
        """Without user name and password."""
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))

    def _repeat(
        self, method: str, url: str, attempts: int, headers: Mapping[str, str] | None, body: Path | None, take: Callable[[Any], None] | None
    ) -> Answer:
        for attempt in range(1, attempts + 1):
            try:
                return self._follow(method, url, headers, body, take)
            except (_Again, httpx.TransportError) as error:
                reason: Exception = error
            except (httpx.InvalidURL, httpx.UnsupportedProtocol) as error:
                raise StoreError(f"{self.shown(url)} is no URL to ask: {error}") from error
            except OSError as error:
                raise StoreError(f"cannot {method} {self.shown(url)}: {error}") from error
            # Full jitter: many hosts that lost the same server must not come back in step.
            pause = max(getattr(reason, "after", 0.0), random.uniform(0, min(5.0, 0.2 * 2**attempt)))
            if time.monotonic() + pause >= self._until:
                raise self._late(method, url, reason)
            if attempt < attempts:
                time.sleep(pause)
        what = f"{type(reason).__name__}: {reason}" if isinstance(reason, httpx.TransportError) else str(reason)
        raise StoreError(f"{method} {self.shown(url)} failed {attempts} times, last with {what}") from reason

    def _late(self, method: str, url: str, reason: Exception | None) -> StoreError:
        last = f" (last: {reason})" if reason is not None and str(reason) else ""
        error = StoreError(f"{method} {self.shown(url)} was not done within its deadline of {self._seconds:g} s{last}")
        error.__cause__ = reason
        return error

    def _follow(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Path | None, take: Callable[[Any], None] | None
    ) -> Answer:
        for _ in range(_REDIRECTS + 1):
            answer = self._ask(method, url, headers, body, take)
            if answer.status not in _MOVED or "Location" not in answer.headers:
                return answer
            if method not in ("GET", "HEAD") and answer.status not in (307, 308):
                raise StoreError(f"{method} {self.shown(url)} was redirected with status {answer.status}, which would lose the body")
            target = urljoin(url, answer.headers["Location"])
            if urlsplit(target).scheme != urlsplit(url).scheme:
                raise StoreError(
                    f"{self.shown(url)} redirects to {self.shown(target)}, which is another scheme", hint="use that URL, if you trust it"
                )
            url = target
        raise StoreError(f"{self.shown(url)} redirects more than {_REDIRECTS} times")

    def _ask(
        self, method: str, url: str, headers: Mapping[str, str] | None, body: Path | None, take: Callable[[Any], None] | None
    ) -> Answer:
        remaining = self._until - time.monotonic()
        if remaining <= 0:
            raise self._late(method, url, None)
        extra: dict[str, Any] = {}
        if body is not None:
            extra = {"content": _pieces(body), "headers": {**(headers or {}), "Content-Length": str(body.stat().st_size)}}
        request = self._client.build_request(
            method, url, timeout=min(_STEP_SECONDS, remaining), extensions={"trace": self._watch.trace}, **{"headers": headers, **extra}
        )
        try:
            with self._watch.until(self._until):
                response = self._client.send(request, stream=True)
                try:
                    if response.status_code in _AGAIN:
                        raise _Again(f"status {response.status_code}", _pause_asked(response))
                    if response.status_code == 200 and take is not None:
                        take(response)
                finally:
                    response.close()
        except httpx.TransportError as error:
            if time.monotonic() >= self._until:
                raise self._late(method, url, error) from error
            raise
        return Answer(response.status_code, response.headers, self.shown(url))

    def _chunks(self, response: httpx.Response) -> Iterator[bytes]:
        for chunk in response.iter_raw(_CHUNK):
            if time.monotonic() >= self._until:
                raise self._late("GET", str(response.url), None)
            yield chunk

    def _write(self, response: httpx.Response, writer: BinaryIO, limit: int) -> None:
        url = self.shown(str(response.url))
        length = response.headers.get("Content-Length", "")
        if length.isdigit() and int(length) > limit:
            raise StoreError(f"{url} has {length} bytes, more than the {limit} allowed")
        seen = 0
        for chunk in self._chunks(response):
            seen += len(chunk)
            if seen > limit:
                raise StoreError(f"{url} has more than the {limit} bytes allowed")
            writer.write(chunk)
        if length.isdigit() and seen != int(length):
            raise _Again(f"{seen} bytes instead of {length}")
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding in ("gzip", "x-gzip"):
            _unwrap(writer, url, limit)
        elif encoding not in ("", "identity"):
            raise StoreError(f"{url} came with the content encoding {encoding!r}, though none was asked for")


def _unwrap(file: BinaryIO, url: str, limit: int) -> None:
    """Undo a content encoding that was not asked for.

    Many servers wrongly label a stored ``.tar.gz`` as the gzip encoding of a ``.tar``; undoing that would change the package. So the
    bytes stay as they came when the name ends in gzip's suffix and only what was sent, not what is within, is gzip.
    """
    file.seek(0)
    decoder, plain = zlib.decompressobj(wbits=31), bytearray()
    try:
        while chunk := file.read(_CHUNK):
            plain += decoder.decompress(chunk, limit + 1 - len(plain))
            if len(plain) > limit:
                raise StoreError(f"{url} has more than the {limit} bytes allowed once its content encoding is undone")
    except zlib.error as error:
        raise StoreError(f"{url} is labelled as gzip and is not: {error}") from error
    if urlsplit(url).path.endswith((".gz", ".tgz")) and not plain.startswith(b"\x1f\x8b"):
        return
    if not decoder.eof:
        raise _Again("the content encoding breaks off")
    file.seek(0)
    file.truncate()
    file.write(plain)


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as reader:
        while chunk := reader.read(_CHUNK):
            yield chunk


def _pause_asked(response: httpx.Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), 30.0) if asked.isdigit() else 0.0


class _Watch:
    """Shuts the connection's socket when the time is over, whatever httpx waits for at that moment."""

    def __init__(self) -> None:
        self._socket: socket.socket | None = None
        self._timer: threading.Timer | None = None

    def trace(self, event: str, info: Mapping[str, Any]) -> None:
        if event in ("connection.connect_tcp.complete", "connection.start_tls.complete", "socks5.connect.complete"):
            stream = info.get("return_value")
            self._socket = stream.get_extra_info("socket") if stream is not None else None

    def until(self, moment: float) -> _Watch:
        self._timer = threading.Timer(max(0.0, moment - time.monotonic()), self._cut)
        self._timer.daemon = True
        return self

    def __enter__(self) -> None:
        assert self._timer is not None
        self._timer.start()

    def __exit__(self, *details: object) -> None:
        assert self._timer is not None
        self._timer.cancel()
        self._timer.join()

    def _cut(self) -> None:
        if self._socket is None:
            return
        try:
            # The plain method: SSLSocket's own would take the TLS object away from the thread that reads with it.
            socket.socket.shutdown(self._socket, socket.SHUT_RDWR)
        except OSError:
            pass  # closed already
