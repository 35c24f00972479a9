"""HTTP routes of an endpoint: what goes into a request, and what comes out."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import BaseModel

from flame_host.handler import create_handler, serialize_result
from flame_host.serverless.http import create_app, request_of, with_requests


class Item(BaseModel):
    name: str
    count: int = 1


async def item(item_id: int, q: str = "none") -> Any:
    return {"id": item_id, "q": q}


async def whole(request: dict[str, Any]) -> Any:
    return {"got": request}


def typed(item: Item) -> Item:
    return Item(name=item.name.upper(), count=item.count + 1)


def two(a: int, b: int = 2) -> int:
    return a + b


def upload(name: str, data: bytes) -> Any:
    return {"name": name, "size": len(data)}


def fails(a: int) -> None:
    raise ValueError(f"no {a}")


def lines(n: int) -> Iterator[Any]:
    yield from ({"n": number} for number in range(n))


def breaks(n: int) -> Iterator[Any]:
    yield {"n": n}
    raise ValueError("halfway")


async def breaks_at_once(n: int) -> Any:
    if n:
        raise ValueError("at once")
    yield n


def anything(**more: Any) -> Any:
    return more


def default(text: str = "none") -> str:
    return text


def total(items: list[int]) -> int:
    return sum(items)


def more(a: int, **others: Any) -> Any:
    return others


def raw() -> bytes:
    return b"\x00\x01"


ROUTES: dict[tuple[str, str], Any] = {
    ("GET", "/items/{item_id}"): item,
    ("POST", "/whole"): whole,
    ("POST", "/typed"): typed,
    ("PUT", "/two"): two,
    ("POST", "/upload"): upload,
    ("POST", "/fails"): fails,
    ("GET", "/lines"): lines,
    ("GET", "/breaks"): breaks,
    ("GET", "/breaks_at_once"): breaks_at_once,
    ("GET", "/nan"): lambda: {"a": float("nan")},
    ("GET", "/any"): anything,
    ("DELETE", "/raw"): raw,
    ("POST", "/default"): default,
    ("POST", "/sum"): total,
    ("POST", "/more"): more,
}
HANDLER = create_handler({"double": lambda n: n * 2})
APP = create_app(ROUTES, HANDLER, title="test")


def ask(method: str, path: str, body: Any = None, kind: str = "application/json") -> tuple[int, Any]:
    path, _, query = path.partition("?")
    data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
    headers = [("content-type", kind), ("content-length", str(len(data)))]
    request = {"method": method, "path": path, "query": query, "headers": headers, "body": base64.b64encode(data).decode()}
    answer = request_of(APP, request)
    content = base64.b64decode(answer["body"])
    return answer["status"], json.loads(content) if dict(answer["headers"])["content-type"] == "application/json" else content


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/items/x", None, 422),
        ("POST", "/whole", [1], 422),
        ("POST", "/whole", b"{", 422),
        ("POST", "/whole", None, 422),
        ("POST", "/typed", {"count": 1}, 422),
        ("PUT", "/two", {"a": "x"}, 422),
        ("PUT", "/two", {}, 422),
        ("PUT", "/two", [1], 422),
        ("GET", "/whole", None, 405),
        ("GET", "/nowhere", None, 404),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_what_is_wrong(method: str, path: str, body: Any, status: int) -> None:
    answered, told = ask(method, path, body)
    assert answered == status
    assert told["detail"]


def test_a_failure_tells_type_message_and_the_users_part_of_the_traceback() -> None:
    status, told = ask("POST", "/fails", {"a": 3})
    assert (status, told["error"], told["error_type"]) == (500, "no 3", "ValueError")
    assert "in fails" in told["traceback"]
    assert "starlette" not in told["traceback"]


@pytest.mark.parametrize(("path", "good", "said"), [("/breaks?n=1", [{"n": 1}], "halfway"), ("/breaks_at_once?n=1", [], "at once")])
def test_a_stream_that_fails_ends_with_a_line_that_says_so(path: str, good: list[Any], said: str) -> None:
    status, content = ask("GET", path)
    *values, last = [json.loads(line) for line in content.splitlines()]
    assert (status, values, last["error"], last["error_type"]) == (200, good, said, "ValueError")


def test_a_value_that_is_no_json_is_a_failure_that_says_so() -> None:
    status, told = ask("GET", "/nan")
    assert status == 500
    assert "cannot be told in JSON" in told["error"]


@pytest.mark.parametrize(
    ("method", "path", "body", "answer"),
    [
        ("GET", "/items/5?q=z", None, {"id": 5, "q": "z"}),
        ("POST", "/whole", {"a": 1, "b": [2]}, {"got": {"a": 1, "b": [2]}}),
        ("POST", "/whole", {"request": {"a": 1}}, {"got": {"a": 1}}),
        ("POST", "/typed", {"name": "a"}, {"name": "A", "count": 2}),
        ("PUT", "/two", {"a": 1, "b": 5}, 6),
        ("PUT", "/two", {"a": 1}, 3),
        ("PUT", "/two?b=7", {"a": 1}, 8),
        ("PUT", "/two?a=1&b=7", None, 8),
        ("POST", "/default", None, "none"),
        ("POST", "/default", {}, "none"),
        ("POST", "/default", {"text": "x"}, "x"),
        ("POST", "/sum", [1, 2], 3),
        ("POST", "/sum?items=1&items=2", None, 3),
        ("POST", "/more", {"a": 1, "b": 2}, {"b": 2}),
        ("GET", "/lines?n=2", None, b'{"n": 0}\n{"n": 1}\n'),
        ("GET", "/any?x=1", None, {"x": "1"}),
        ("DELETE", "/raw", None, b"\x00\x01"),
        ("GET", "/ping", None, {"status": "healthy"}),
        ("GET", "/health", None, {"status": "healthy"}),
    ],
)
def test_arguments_are_taken_from_where_a_client_puts_them(method: str, path: str, body: Any, answer: Any) -> None:
    assert ask(method, path, body) == (200, answer)


def test_files_can_be_uploaded() -> None:
    body = b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nx\r\n--b\r\n'
    body += b'Content-Disposition: form-data; name="data"; filename="f"\r\n\r\n12345\r\n--b--\r\n'
    assert ask("POST", "/upload", body, "multipart/form-data; boundary=b") == (200, {"name": "x", "size": 5})


def test_other_endpoints_can_give_it_jobs() -> None:
    job = {"input": {"function_name": "double", "args": [serialize_result(4)]}}
    assert ask("POST", "/runsync", job) == (200, {"status": "COMPLETED", "output": {"success": True, "result": serialize_result(8)}})


def test_jobs_and_requests_come_in_by_one_door() -> None:
    either = with_requests(HANDLER, APP)
    assert either({"input": {"n": 2}}) == 4
    assert either({"request": {"method": "GET", "path": "/ping"}})["status"] == 200
