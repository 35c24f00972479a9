"""What `HandlerServer` is asked, and what it answers."""

from __future__ import annotations

import base64
import contextlib
import hmac
import ipaddress
import json
import logging
import re
import socket
import time
from concurrent.futures import TimeoutError as FutureTimeoutError
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any, cast
from urllib.parse import parse_qs, quote, unquote, urlsplit

from flame_host.api import FlameError
from flamepy.build.deployment import Deployment
from flamepy.build.jobs import Job, Jobs, Stream, completed, new_id
from flamepy.build.page import page_of
from flamepy.build.passing import HOP_BY_HOP, Asked, asked_of

MOST_BYTES = 64 << 20
"""Of a request's body."""
SYNC_SECONDS = 90.0
"""How long ``/runsync`` waits before it answers that the job is in progress, as the platform does."""
IDLE_SECONDS = 60.0
STREAM_SECONDS = 10.0
"""How long ``/stream`` waits for a value."""
AWAY_SECONDS = 5.0
"""How long the body of a request is read away that was refused without looking at it."""
CANCEL_SECONDS = 5.0
"""How long ``/cancel`` waits for a worker to stop."""
_WORDS = frozenset({"run", "runsync", "status", "stream", "cancel"})

logger = logging.getLogger("flamepy.serve")


class Listener(ThreadingHTTPServer):
    deployment: Deployment
    token: bytes
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], requests: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, requests)
        self.jobs = Jobs()
        self.version = new_id()
        self.problem = ""
        self.only_local = _is_loopback(address[0])

    def server_bind(self) -> None:
        TCPServer.server_bind(self)  # HTTPServer's own asks for the machine's name, which may take seconds
        self.server_name, self.server_port = self.server_address[:2]  # type: ignore[assignment]

    def handle_error(self, request: Any, client_address: Any) -> None:
        logger.debug("a client went away: %s", client_address, exc_info=True)


class _Refused(Exception):
    """The request is not answered by a job."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server_version = "flame"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def do_PUT(self) -> None:
        self._answer("PUT")

    def do_PATCH(self) -> None:
        self._answer("PATCH")

    def do_DELETE(self) -> None:
        self._answer("DELETE")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def log_message(self, format: str, *args: Any) -> None:
        logger.info("%s %s", self.client_address[0], format % args)

    # ------------------------------------------------------------------ from request to answer

    def _answer(self, method: str) -> None:
        status = HTTPStatus.OK
        self._unread = self.headers.get("Content-Length", "0") != "0"
        try:
            self._check_origin()
            if self._is_entered(method):
                return
            self._check_token()
            asked = asked_of(self._deployment, method, self.path)
            body = self._body(needed=method == "POST" and asked is None)
            if asked is not None:
                self._send_http(self._http_answer(method, body, asked), method)
                return
            if method == "GET" and urlsplit(self.path).path == "/" and "text/html" in self.headers.get("Accept", ""):
                self._send_page()
                return
            answer = self._route(method, body)
        except _Refused as refused:
            status, answer = refused.status, {"error": str(refused)}
            self.close_connection = True  # what was not read of the body would be taken for the next request
        except FlameError as error:
            status, answer = HTTPStatus.SERVICE_UNAVAILABLE, {"error": str(error)}
        data = json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        if status is HTTPStatus.UNAUTHORIZED:
            self.send_header("WWW-Authenticate", "Bearer")
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        self.wfile.write(data)
        if self._unread:
            self._read_away()

    def _read_away(self) -> None:
        """What a client still sends: one that cannot send it all never looks at the answer."""
        self.connection.settimeout(AWAY_SECONDS)
        deadline = time.monotonic() + AWAY_SECONDS
        with contextlib.suppress(OSError):
            while time.monotonic() < deadline and self.rfile.read1(1 << 16):
                pass

    def _send_page(self) -> None:
        data = page_of(self._deployment.manifest, self._listener.version, problem=self._listener.problem).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(data)))
        self.send_header("Content-Security-Policy", "default-src 'self' 'unsafe-inline'; frame-ancestors 'none'")
        self.end_headers()
        self.wfile.write(data)

    def _http_answer(self, method: str, body: bytes, asked: Asked) -> dict[str, Any]:
        output = asked.submit(method, list(self.headers.items()), body)
        try:
            answer: dict[str, Any] = output.result(SYNC_SECONDS)
        except (TimeoutError, FutureTimeoutError):
            output.cancel(force=True)
            raise _Refused(HTTPStatus.GATEWAY_TIMEOUT, f"{asked.path} has not answered within {SYNC_SECONDS:.0f} s") from None
        except Exception as error:
            raise _Refused(HTTPStatus.BAD_GATEWAY, f"the worker of {asked.resource} did not answer: {error}") from error
        return answer

    def _send_http(self, answer: dict[str, Any], method: str) -> None:
        data = base64.b64decode(answer["body"])
        self.send_response(answer["status"])
        for name, value in answer["headers"]:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(b"" if method == "HEAD" else data)

    def _is_entered(self, method: str) -> bool:
        """``/?token=…``, as a browser is led here: the token goes into a cookie, for pages cannot send it otherwise, and out of the URL."""
        asked = urlsplit(self.path)
        shown = parse_qs(asked.query).get("token", [""])[0]
        if method != "GET" or asked.path != "/" or not self._is_token(shown):
            return False
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Set-Cookie", f"{self._cookie}={quote(shown, safe='')}; Path=/; HttpOnly; SameSite=Strict")
        self.send_header("Location", "/")
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Content-Length", "0")
        self.end_headers()
        return True

    def _check_token(self) -> None:
        kind, _, shown = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer" and self._is_token(shown.strip()):
            return
        kept = re.search(rf"(?:^|;)\s*{self._cookie}=([^;\s]*)", self.headers.get("Cookie", ""))
        if kept is not None and self._is_token(unquote(kept[1])):
            return
        raise _Refused(HTTPStatus.UNAUTHORIZED, "show the token that was printed with the address:  Authorization: Bearer <token>")

    def _is_token(self, shown: str) -> bool:
        return hmac.compare_digest(shown.encode("utf-8", "surrogateescape"), self._listener.token)

    @property
    def _cookie(self) -> str:
        """Cookies are shared by all ports of a name."""
        return f"flame-{self._listener.server_port}"

    def _body(self, *, needed: bool) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length and not needed:
            return b""
        if not length.isdecimal():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "the request must have a Content-Length")
        if int(length) > MOST_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has {length} bytes; {MOST_BYTES} are allowed")
        self._unread = False
        return self.rfile.read(int(length))

    def _check_origin(self) -> None:
        if not self._listener.only_local:
            return
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        own = ("", f"http://{self.headers.get('Host', '')}")
        if self.headers.get("Origin", "") not in own or not _is_loopback(name):  # a page that was led here under another name
            raise _Refused(HTTPStatus.FORBIDDEN, "only programs of this machine may call this server, not pages in a browser")

    def _route(self, method: str, body: bytes) -> Any:
        parts = [unquote(part) for part in urlsplit(self.path).path.split("/") if part]
        # A resource may be called "status": what follows tells it from the word.
        resource = parts.pop(0) if len(parts) > 1 and parts[1] in _WORDS and parts[0] in self._deployment.resources else None
        match method, parts:
            case "GET", []:
                return self._index()
            case "GET", ["health"]:
                return {"jobs": self._listener.jobs.counts()}
            case "GET", ["version"]:
                return {"version": self._listener.version}
            case "POST", ["run" | "runsync" as how]:
                return self._run(resource, body, wait=how == "runsync")
            case _, ["status", id]:
                return self._job(id, resource).answer()
            case "POST", ["cancel", id]:
                job = self._job(id, resource)
                job.cancel()
                job.output_ended(CANCEL_SECONDS)
                return job.answer()
            case _, ["stream", id]:
                return self._stream(self._job(id, resource))
            case _, ["run" | "runsync" | "cancel", *_]:
                raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, f"use POST for {self.path}")
        known = ", ".join(self._deployment.resources)
        raise _Refused(HTTPStatus.NOT_FOUND, f"nothing at {self.path}; there are /runsync, /run, /status/<id>, and resources: {known}")

    def _run(self, resource: str | None, body: bytes, *, wait: bool) -> dict[str, Any]:
        request = self._job_request(body)
        given = request["input"]
        function = given.get("function_name") if isinstance(given, dict) else None
        home = resource or self._deployment.home_of(function)
        if home is None:
            known = list(self._deployment.manifest["function_registry"])
            message = f"Function '{function}' not found in registry. Available: {known}"
            return {"id": new_id(), **completed({"success": False, "error": message, "traceback": ""})}
        id = new_id()
        submitted = self._deployment.submit(home, {"id": id, "input": given})
        stream = Stream(submitted) if self._deployment.streams(home) else None
        job = Job(id, home, submitted if stream is None else stream.output, stream=stream)
        self._listener.jobs.add(job)
        if wait and job.output_ended(SYNC_SECONDS):
            self._listener.jobs.drop(job)  # answered here and now; keeping it would keep its result in memory
        return job.answer()

    def _stream(self, job: Job) -> dict[str, Any]:
        """What came since it was last asked for; waits a little for the first."""
        if job.stream is None:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"resource {job.resource!r} does not stream; ask /status/{job.id}")
        values = job.stream.take(STREAM_SECONDS)
        return {**job.answer(), "stream": [{"output": value} for value in values]}

    def _job_request(self, body: bytes) -> dict[str, Any]:
        if self.headers.get_content_type() != "application/json":
            raise _Refused(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "the request must be of type application/json")
        try:
            request = json.loads(body)
        except (ValueError, RecursionError) as error:
            raise _Refused(HTTPStatus.BAD_REQUEST, f"the request is not JSON: {error}") from error
        if not isinstance(request, dict) or "input" not in request:
            raise _Refused(HTTPStatus.UNPROCESSABLE_ENTITY, 'the request must be an object with the job\'s "input"')
        return request

    def _job(self, id: str, resource: str | None) -> Job:
        job = self._listener.jobs.get(id, resource)
        if job is None:
            raise _Refused(HTTPStatus.NOT_FOUND, f"there is no job {id}, or it was done too long ago")
        return job

    def _index(self) -> dict[str, Any]:
        base = f"http://{self.headers.get('Host', '')}"
        resources = {name: f"{base}/{quote(name, safe='')}" for name in self._deployment.resources}
        return {"resources": resources, "functions": self._deployment.manifest["function_registry"]}

    @property
    def _listener(self) -> Listener:
        return cast(Listener, self.server)

    @property
    def _deployment(self) -> Deployment:
        return self._listener.deployment


def _is_loopback(name: str) -> bool:
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
