"""One transfer: requests that share a deadline, are repeated when that can help, and follow redirects with care."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import random
import shutil
import socket
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, BinaryIO
from urllib.parse import urljoin, urlsplit

import httpx

from flame_fetch_http.credentials import credentials_for
from flame_host.api import StoreError, without_secrets

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
        """Without user name, password and what a query says."""
        return without_secrets(url)

    def _repeat(
        self, method: str, url: str, attempts: int, headers: Mapping[str, str] | None, body: Path | None, take: Callable[[Any], None] | None
    ) -> Answer:
        for attempt in range(1, attempts + 1):
            try:
                return self._follow(method, url, headers, body, take)
            except (_Again, httpx.TransportError) as error:
                reason: Exception = error
            except StoreError:
                raise
            except (httpx.InvalidURL, httpx.UnsupportedProtocol, ValueError) as error:
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
        url, auth = credentials_for(url)
        extra: dict[str, Any] = {}
        if body is not None:
            extra = {"content": _pieces(body), "headers": {**(headers or {}), "Content-Length": str(body.stat().st_size)}}
        request = self._client.build_request(
            method, url, timeout=min(_STEP_SECONDS, remaining), extensions={"trace": self._watch.trace}, **{"headers": headers, **extra}
        )
        try:
            with self._watch.until(self._until), _discreet():
                response = self._client.send(request, stream=True, auth=auth)
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
        if is_number(length) and int(length) > limit:
            raise StoreError(f"{url} has {length} bytes, more than the {limit} allowed")
        seen = 0
        for chunk in self._chunks(response):
            seen += len(chunk)
            if seen > limit:
                raise StoreError(f"{url} has more than the {limit} bytes allowed")
            writer.write(chunk)
        if is_number(length) and seen != int(length):
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
    with tempfile.TemporaryFile() as plain:  # not in memory: a small answer can stand for gigabytes
        file.seek(0)
        whole = _inflate(file, plain, url, limit)
        plain.seek(0)
        if urlsplit(url).path.endswith((".gz", ".tgz")) and plain.read(2) != b"\x1f\x8b":
            return
        if not whole:
            raise _Again("the content encoding breaks off")
        plain.seek(0)
        file.seek(0)
        file.truncate()
        shutil.copyfileobj(plain, file, _CHUNK)


def _inflate(file: BinaryIO, plain: IO[bytes], url: str, limit: int) -> bool:
    """Whether its end came."""
    decoder, seen = zlib.decompressobj(wbits=31), 0
    try:
        while (data := decoder.unconsumed_tail or file.read(_CHUNK)) and not decoder.eof:
            piece = decoder.decompress(data, _CHUNK)
            seen += len(piece)
            if seen > limit:
                raise StoreError(f"{url} has more than the {limit} bytes allowed once its content encoding is undone")
            plain.write(piece)
    except zlib.error as error:
        raise StoreError(f"{url} is labelled as gzip and is not: {error}") from error
    return decoder.eof


def is_number(text: str) -> bool:
    """Of plain digits, and not so many that nobody can mean it: a header may hold anything."""
    return text.isascii() and text.isdigit() and len(text) < 20


class _Discreet(logging.Filter):
    """httpx logs every URL it asks; those of ours may carry a token in their query."""

    def filter(self, record: logging.LogRecord) -> bool:
        if getattr(_this_thread, "discreet", False):
            record.msg, record.args = without_secrets(record.getMessage()), ()
        return True


_this_thread = threading.local()
logging.getLogger("httpx").addFilter(_Discreet())


@contextlib.contextmanager
def _discreet() -> Iterator[None]:
    _this_thread.discreet = True
    try:
        yield
    finally:
        _this_thread.discreet = False


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as reader:
        while chunk := reader.read(_CHUNK):
            yield chunk


def _pause_asked(response: httpx.Response) -> float:
    asked = response.headers.get("Retry-After", "")
    return min(float(asked), 30.0) if is_number(asked) else 0.0


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
