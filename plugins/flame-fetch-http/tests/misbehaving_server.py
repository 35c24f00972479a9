"""An HTTP server for tests: a place for packages below ``/ok/``, and one fault per path elsewhere."""

from __future__ import annotations

import gzip
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CONTENT = b"\x1f\x8b" + b"the package" * 1000
PLAIN = b"not compressed itself" * 500


class Server(ThreadingHTTPServer):
    """Attributes: stored: content by path. headers: what came with it. requests: how often each method and path was asked for."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.stored: dict[str, bytes] = {}
        self.told: dict[str, str] = {}
        self.requests: Counter[str] = Counter()
        self.lock = threading.Lock()
        self.stopping = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # a client that gives up is what many of these tests are about


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Server

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def handle_one_request(self) -> None:
        with suppress(ConnectionError, TimeoutError):
            super().handle_one_request()

    def do_GET(self) -> None:
        with self.server.lock:
            self.server.requests[f"{self.command} {self.path}"] += 1
        section = self.path.split("/")[1]
        getattr(self, section.replace("-", "_"), self.nothing)()

    do_HEAD = do_PUT = do_DELETE = do_GET

    def answer(self, status: int, body: bytes = b"", length: int | None = None, **headers: str) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        if "Transfer_Encoding" not in headers and length != -1:
            self.send_header("Content-Length", str(len(body) if length is None else length))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def tries(self) -> int:
        return self.server.requests[f"{self.command} {self.path}"]

    def body(self) -> bytes:
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def nothing(self) -> None:
        self.body()
        self.answer(404)

    # ------------------------------------------------------------ a place that works

    def ok(self, tells_digest: bool = True, conditional: bool = True) -> None:
        stored = self.server.stored
        if self.command == "PUT":
            content = self.body()
            with self.server.lock:
                if conditional and self.path in stored and self.headers.get("If-None-Match") == "*":
                    return self.answer(412)
                stored[self.path] = content
                self.server.told[self.path] = self.headers.get("X-Flame-Digest", "")
            return self.answer(201)
        if self.path not in stored:
            return self.answer(404)
        if self.command == "DELETE":
            with self.server.lock:
                stored.pop(self.path, None)
            return self.answer(204)
        told = {"X_Flame_Digest": self.server.told[self.path]} if tells_digest and self.server.told.get(self.path) else {}
        self.answer(200, stored[self.path], **told)

    def dumb(self) -> None:
        """Keeps no headers and heeds no conditions."""
        self.ok(tells_digest=False, conditional=False)

    def headless(self) -> None:
        self.answer(405) if self.command == "HEAD" else self.ok()

    def shortens(self) -> None:
        """Keeps half of what is uploaded, and says that all is well."""
        self.ok()
        if self.command == "PUT":
            self.server.stored[self.path] = self.server.stored[self.path][: len(self.server.stored[self.path]) // 2]
            self.server.told.pop(self.path, None)

    def forgets_to_answer(self) -> None:
        """Stores the first upload and drops the connection before the answer."""
        if self.command == "PUT" and self.tries() == 1:
            self.server.stored[self.path] = self.body()
            self.close_connection = True
            return
        self.ok()

    # ------------------------------------------------------------ faults

    def forbidden(self) -> None:
        self.body()
        self.answer(403)

    def read_only(self) -> None:
        self.body()
        self.answer(404 if self.command in ("HEAD", "GET") else 405)

    def full(self) -> None:
        self.body()
        self.answer(404 if self.command in ("HEAD", "GET") else 507)

    def always_500(self) -> None:
        self.body()
        self.answer(500)

    def twice_503(self) -> None:
        self.answer(503, Retry_After="0") if self.tries() <= 2 else self.answer(200, CONTENT)

    def retry_after_an_hour(self) -> None:
        self.answer(429, Retry_After="3600")

    def once_short(self) -> None:
        if self.tries() == 1:
            self.answer(200, CONTENT[:100], length=len(CONTENT))
            self.close_connection = True
        else:
            self.answer(200, CONTENT)

    def always_short(self) -> None:
        self.answer(200, CONTENT[:100], length=len(CONTENT))
        self.close_connection = True

    def once_closed(self) -> None:
        if self.tries() == 1:
            self.close_connection = True
        else:
            self.answer(200, CONTENT)

    def garbage(self) -> None:
        self.wfile.write(b"this is no HTTP\r\n\r\n")
        self.close_connection = True

    def endless(self) -> None:
        self.answer(200, length=-1)
        while not self.server.stopping.is_set():
            self.wfile.write(b"x" * 65536)

    def drips_body(self) -> None:
        self.answer(200, length=1_000_000)
        self._drip()

    def drips_headers(self) -> None:
        self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
        self._drip()

    def silent(self) -> None:
        self.server.stopping.wait(30)

    def _drip(self) -> None:
        while not self.server.stopping.wait(0.05):
            self.wfile.write(b"x")
        self.close_connection = True

    def lies_about_size(self) -> None:
        self.answer(200, length=1 << 40)

    def partial(self) -> None:
        self.answer(206, CONTENT[:10], Content_Range=f"bytes 0-9/{len(CONTENT)}")

    def redirect(self) -> None:
        self.answer(302, Location="/plain/p.tar.gz")

    def redirect_put(self) -> None:
        self.body()
        self.answer(307, Location=self.path.replace("/redirect-put/", "/ok/"))

    def redirect_put_as_get(self) -> None:
        self.body()
        self.answer(404) if self.command == "HEAD" else self.answer(302, Location="/ok/p.zip")

    def redirect_loop(self) -> None:
        self.answer(302, Location=self.path)

    def redirect_https(self) -> None:
        self.answer(301, Location="https://127.0.0.1/p.zip")

    def redirect_file(self) -> None:
        self.answer(301, Location="file:///etc/passwd")

    def plain(self) -> None:
        self.answer(200, CONTENT)

    def gzip_labelled(self) -> None:
        """A stored .tar.gz with the wrong label; the name says what it is."""
        self.answer(200, gzip.compress(PLAIN, mtime=0), Content_Encoding="gzip")

    def brotli(self) -> None:
        self.answer(200, b"whatever", Content_Encoding="br")

    def broken_gzip(self) -> None:
        self.answer(200, b"no gzip at all", Content_Encoding="gzip")

    def gzip_bomb(self) -> None:
        self.answer(200, gzip.compress(b"\0" * 50_000_000), Content_Encoding="gzip")


@contextmanager
def serving() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.stopping.set()
        server.shutdown()
        server.server_close()
        thread.join()
        until = time.monotonic() + 5  # the handlers of this server see `stopping` and end
        while any("process_request_thread" in other.name for other in threading.enumerate()) and time.monotonic() < until:
            time.sleep(0.01)
