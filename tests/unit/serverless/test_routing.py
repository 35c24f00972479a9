"""Calls to another endpoint, over real HTTP on loopback."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from flame_host.api import ConfigError, RemoteError
from flame_host.handler import create_handler
from flame_host.serverless.routing import EndpointError, Router

Answer = Callable[[str, str, Any], tuple[int, Any]]


class Server(ThreadingHTTPServer):
    daemon_threads = True
    answer: Answer
    seen: list[tuple[str, str, dict[str, str]]]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/gpu"


class _Requests(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self._reply(json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or "null"))

    def do_GET(self) -> None:
        self._reply(None)

    def _reply(self, body: Any) -> None:
        self.server.seen.append((self.command, self.path, dict(self.headers)))
        status, answer = self.server.answer(self.command, self.path, body)
        data = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        if status in (302, 307):
            self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *_: object) -> None:
        pass


class Broken(Exception):
    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


def boom(code: int) -> None:
    raise Broken(code)


class Counter:
    def __init__(self, start: int) -> None:
        self.value = start

    def add(self, by: int) -> int:
        self.value += by
        return self.value


handler = create_handler({"double": lambda value: value * 2, "boom": boom, "Counter": Counter})


def serve(method: str, path: str, body: Any) -> tuple[int, Any]:
    """As the real worker does: ``error`` is taken out of the output."""
    output = handler(body)
    error = output.pop("error", None)
    return 200, {"id": "1", "status": "FAILED", "error": error} if error else {"id": "1", "status": "COMPLETED", "output": output}


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), _Requests)
    server.answer, server.seen = serve, []
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def router(server: Server, **more: Any) -> Router:
    return Router({"endpoints": {"gpu": server.url}, **more})


def test_an_endpoint_without_a_url_is_an_error_that_says_what_to_set() -> None:
    with pytest.raises(EndpointError, match="lives at endpoint 'gpu', and no URL") as caught:
        Router({"endpoints": {"cpu": "http://127.0.0.1:9"}}).call("gpu", "double", (1,), {})
    assert caught.value.resource == "gpu"
    assert "FLAME_ENDPOINTS" in str(caught.value)


@pytest.mark.parametrize("text", ["{", "[]", '{"gpu": 3}'])
def test_a_table_of_endpoints_that_cannot_be_read_is_an_error(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("FLAME_ENDPOINTS", text)
    with pytest.raises(ConfigError, match="FLAME_ENDPOINTS"):
        Router({})


def test_an_endpoint_that_is_not_there_is_an_error() -> None:
    with pytest.raises(EndpointError, match="cannot be reached"):
        Router({"endpoints": {"gpu": "http://127.0.0.1:9/gpu"}}).call("gpu", "double", (1,), {})


@pytest.mark.parametrize(
    ("status", "answer", "reason"),
    [
        (500, {"detail": "no"}, "answered 500"),
        (302, {}, "answered 302"),
        (200, b"<html>", "something else than JSON"),
        (200, [1], "answered a list"),
        (200, {"id": "1"}, "something else than a job's output"),
        (200, {"status": "COMPLETED", "output": 3}, "something else than a job's output"),
        (200, {"id": "1", "status": "CANCELLED"}, "took the job back: it was cancelled"),
        (200, {"id": "1", "status": "TIMED_OUT"}, "took the job back: it took longer than the endpoint allows"),
    ],
)
def test_what_does_not_answer_like_an_endpoint_is_an_error(server: Server, status: int, answer: Any, reason: str) -> None:
    server.answer = lambda method, path, body: (status, answer)
    with pytest.raises(EndpointError, match=reason):
        router(server).call("gpu", "double", (1,), {})


def test_an_answer_over_the_limit_is_an_error(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_MAX_RESULT_BYTES", "1000")
    server.answer = lambda method, path, body: (200, b" " * 3_000_000)
    with pytest.raises(EndpointError, match="answered more than"):
        router(server).call("gpu", "double", (1,), {})


def test_a_job_that_is_never_done_ends_at_the_deadline(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_ENDPOINT_TIMEOUT", "0.3")
    server.answer = lambda method, path, body: (200, {"id": "7", "status": "IN_PROGRESS"})
    with pytest.raises(EndpointError, match="did not finish the job in time"):
        router(server).call("gpu", "double", (1,), {})


def test_a_remote_exception_arrives_with_its_type_and_traceback(server: Server) -> None:
    with pytest.raises(Broken) as caught:
        router(server).call("gpu", "boom", (7,), {})
    assert caught.value.code == 7
    assert "in boom" in str(caught.value.__cause__)


def test_a_remote_exception_is_told_about_where_pickle_is_denied(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    denied = Router({"endpoints": {"gpu": server.url}, "policy": {"pickle": "deny"}, "serializers": [{"format": "json/1"}]})
    with pytest.raises(RemoteError, match="Broken: 7") as caught:
        denied.call("gpu", "boom", (7,), {})
    assert "in boom" in caught.value.remote_traceback


def test_a_worker_that_only_knows_plain_errors_is_understood(server: Server) -> None:
    server.answer = lambda method, path, body: (200, {"id": "1", "status": "FAILED", "error": "out of memory"})
    with pytest.raises(RemoteError, match="out of memory"):
        router(server).call("gpu", "double", (1,), {})


def test_a_function_is_called_and_its_result_keeps_its_type(server: Server) -> None:
    assert router(server).call("gpu", "double", ((1, "a"),), {}) == (1, "a", 1, "a")
    assert server.seen[0][1] == "/gpu/runsync"


def test_keywords_travel(server: Server) -> None:
    assert router(server).call("gpu", "double", (), {"value": 4}) == 8


def test_methods_are_called_on_the_instance_the_endpoint_keeps(server: Server) -> None:
    there = router(server)
    totals = [there.call_method("gpu", "Counter", ((100,), {}), "add", (by,), {}) for by in (1, 2)]
    assert totals == [101, 103]


def test_a_job_in_the_queue_is_asked_for_until_it_is_done(server: Server) -> None:
    states = iter(["IN_QUEUE", "IN_PROGRESS"])
    held: dict[str, Any] = {}

    def slowly(method: str, path: str, body: Any) -> tuple[int, Any]:
        held.setdefault("body", body)
        state = next(states, None)
        return serve(method, path, held["body"]) if state is None else (200, {"id": "job-7", "status": state})

    server.answer = slowly
    assert router(server).call("gpu", "double", (2,), {}) == 4
    assert [path for _, path, _ in server.seen] == ["/gpu/runsync", "/gpu/status/job-7", "/gpu/status/job-7"]


def test_the_environment_goes_before_the_manifest(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_ENDPOINTS", json.dumps({"gpu": server.url}))
    assert Router({"endpoints": {"gpu": "http://127.0.0.1:9"}}).call("gpu", "double", (2,), {}) == 4


def test_the_key_is_sent_to_endpoints_only_where_nobody_listens(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNPOD_API_KEY", "secret")
    router(server).call("gpu", "double", (2,), {})
    assert server.seen[0][2]["Authorization"] == "Bearer secret"


def test_who_this_is_and_where_functions_live_is_read_from_the_manifest(monkeypatch: pytest.MonkeyPatch) -> None:
    functions = [{"name": "f", "module": "a"}, {"name": "served", "module": "a", "original": "b:written"}]
    manifest = {"resources": {"gpu": {"functions": functions}}, "endpoints": {"gpu": "https://example.invalid/v2/abc123/"}}
    assert Router(manifest).home_of("a", "f", "?") == ("gpu", "f")
    assert Router(manifest).home_of("b", "written", "?") == ("gpu", "served")
    assert Router(manifest).home_of("c", "unknown", "cpu") == ("cpu", "unknown")
    monkeypatch.setenv("RUNPOD_ENDPOINT_ID", "abc123")
    assert Router(manifest).is_here("gpu")
    monkeypatch.setenv("FLAME_RESOURCE_NAME", "other")
    assert not Router(manifest).is_here("gpu")
