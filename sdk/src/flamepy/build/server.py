"""``flame run --handler``: a built archive behind HTTP, as the serverless platform would have it.

::

    with HandlerServer("archive.tar.gz") as server:
        headers = {"Authorization": f"Bearer {server.token}"}
        requests.post(f"{server.url}/runsync", json={"input": {"function_name": "infer", "args": []}}, headers=headers)

``POST /runsync`` gives the finished job, ``POST /run`` its identifier, ``GET`` or ``POST /status/<id>`` how it stands, ``POST
/cancel/<id>`` takes it back. Each is there for the archive as a whole, where the function's name finds the resource, and below
``/<resource>``, which is also how the resources reach each other. ``GET /`` says what is served.

A request carries code to run (a pickle), so nobody is listened to who does not show the server's token, a random one unless one is
given: ``Authorization: Bearer <token>``. Other users of this machine can reach the port, and so can a page in a browser. The server
binds the loopback address, and refuses what is not ``application/json`` or was meant for another host name.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import logging
import secrets
import socket
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socketserver import TCPServer
from types import TracebackType
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

from flame_host.api import FlameError
from flamepy.build.deployment import Deployment
from flamepy.build.jobs import Job, Jobs, completed, new_id

if TYPE_CHECKING:
    from flame_host import Host

__all__ = ["HandlerServer"]

MOST_BYTES = 64 << 20
"""Of a request's body."""
SYNC_SECONDS = 90.0
"""How long ``/runsync`` waits before it answers that the job is in progress, as the platform does."""
IDLE_SECONDS = 60.0
_WORDS = frozenset({"run", "runsync", "status", "cancel"})

logger = logging.getLogger("flamepy.serve")


class HandlerServer:
    """Serves one archive until it is closed.

    Args:
        port: 0 takes a free one.
        host: address to listen at. Anybody who can reach it and knows the token can run code here as this user.
        services: host to unpack and run it on.
        token: what requests have to show; by default a random one.

    Attributes:
        token: for the header ``Authorization: Bearer <token>``.

    Raises:
        PackageError, ProvisionError: see `Deployment`. OSError: the port is taken.
    """

    def __init__(
        self, archive: str | Path, *, host: str = "127.0.0.1", port: int = 0, services: Host | None = None, token: str = ""
    ) -> None:
        self.token = token or secrets.token_urlsafe(32)
        self._http = _Listener((host, port), _Requests)
        self._http.token = self.token.encode()
        try:
            # The port must be known first: the workers' environment says where the other resources are.
            self._http.deployment = Deployment(archive, self.url_of, host=services, key=self.token)
        except BaseException:
            self._http.server_close()
            raise
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.05,), name="flame-serve", daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        host, port = self._http.server_address[:2]
        return f"http://{_reachable(str(host))}:{port}"

    @property
    def manifest(self) -> dict[str, Any]:
        return self._http.deployment.manifest

    def url_of(self, resource: str) -> str:
        """Where jobs of one resource can be posted."""
        return f"{self.url}/{quote(resource, safe='')}"

    def wait(self) -> None:
        """Until it is closed, or interrupted."""
        while self._thread.is_alive():
            self._thread.join(0.5)  # in slices: a plain join would not notice a signal on every platform

    def close(self) -> None:
        """Stop listening, end the workers; jobs that run are given up. Closing twice is fine."""
        if self._thread.is_alive():
            self._http.shutdown()
            self._thread.join()
        self._http.server_close()
        self._http.deployment.close()

    def __enter__(self) -> HandlerServer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


class _Listener(ThreadingHTTPServer):
    deployment: Deployment
    token: bytes
    daemon_threads = True
    request_queue_size = 128

    def __init__(self, address: tuple[str, int], requests: type[BaseHTTPRequestHandler]) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        super().__init__(address, requests)
        self.jobs = Jobs()
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


class _Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = IDLE_SECONDS
    server_version = "flame"
    sys_version = ""

    def do_GET(self) -> None:
        self._answer("GET")

    def do_POST(self) -> None:
        self._answer("POST")

    def log_message(self, format: str, *args: Any) -> None:
        logger.info("%s %s", self.client_address[0], format % args)

    # ------------------------------------------------------------------ from request to answer

    def _answer(self, method: str) -> None:
        status = HTTPStatus.OK
        try:
            self._check_token()
            self._check_origin()
            body = self._body() if method == "POST" else b""
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

    def _check_token(self) -> None:
        kind, _, shown = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() != "bearer" or not hmac.compare_digest(shown.strip().encode("utf-8", "surrogateescape"), self._listener.token):
            raise _Refused(HTTPStatus.UNAUTHORIZED, "show the token that was printed with the address:  Authorization: Bearer <token>")

    def _body(self) -> bytes:
        length = self.headers.get("Content-Length", "")
        if not length.isdecimal():
            raise _Refused(HTTPStatus.LENGTH_REQUIRED, "the request must have a Content-Length")
        if int(length) > MOST_BYTES:
            raise _Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"the request has {length} bytes; {MOST_BYTES} are allowed")
        return self.rfile.read(int(length))

    def _check_origin(self) -> None:
        if not self._listener.only_local:
            return
        name = urlsplit(f"//{self.headers.get('Host', '')}").hostname or ""
        if self.headers.get("Origin") or not _is_loopback(name):  # a page that was led here under another name
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
            case "POST", ["run" | "runsync" as how]:
                return self._run(resource, body, wait=how == "runsync")
            case _, ["status", id]:
                return self._job(id, resource).answer()
            case "POST", ["cancel", id]:
                job = self._job(id, resource)
                job.output.cancel()
                return job.answer()
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
        job = Job(id, home, self._deployment.submit(home, {"id": id, "input": given}))
        self._listener.jobs.add(job)
        if wait and job.output.wait(SYNC_SECONDS):  # type: ignore[attr-defined]  # an ObjectFuture
            self._listener.jobs.drop(job)  # answered here and now; keeping it would keep its result in memory
        return job.answer()

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
    def _listener(self) -> _Listener:
        return cast(_Listener, self.server)

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


def _reachable(host: str) -> str:
    """An address to connect to, for one that was bound to."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(host, f"[{host}]" if ":" in host else host)
