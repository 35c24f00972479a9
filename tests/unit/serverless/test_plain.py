"""Jobs in plain JSON, next to those of the encoded form."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import functools
import json
import pickle
import threading
from typing import Any, Optional

import pytest

from flame_host.handler import create_concurrent_handler, create_handler, create_stream_handler, serialize_result


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


def double(n: int) -> int:
    return n * 2


async def later(n: int) -> int:
    await asyncio.sleep(0)
    return n + 1


def whole(data: dict[str, Any]) -> Any:
    return data


def mirrored(point: Point) -> Point:
    return Point(-point.x, -point.y)


def fails(n: int) -> None:
    raise KeyError(f"no {n}")


def leaves() -> None:
    raise SystemExit("enough")


@functools.lru_cache
def cached(n: int) -> int:
    return n


def positional(a: int, b: int = 2, /, c: int = 3) -> Any:
    return [a, b, c]


@dataclasses.dataclass
class Path:
    name: str
    points: list[Point]
    end: Point | None = None


def drawn(path: Path, more: Optional[list[Point]] = None, named: dict[str, Point] | None = None) -> Any:  # noqa: UP045  # written so
    points = [*path.points, *([path.end] if path.end else []), *(more or []), *(named or {}).values()]
    return [point.x for point in points]


def words(text: str) -> Any:
    yield from text.split()


async def numbers(n: int) -> Any:
    for number in range(n):
        yield number


def breaks(n: int) -> Any:
    yield n
    raise ValueError("halfway")


class Counter:
    def __init__(self) -> None:
        self.count = 0

    def add(self, n: int) -> int:
        self.count += n
        return self.count

    async def get(self) -> int:
        return self.count

    def _secret(self) -> str:
        return "secret"


def ask(function: Any, given: Any) -> Any:
    return create_handler({function.__name__: function})({"input": given})


def told(answer: dict[str, Any]) -> dict[str, Any]:
    assert answer["success"] is False
    return json.loads(answer["error"])


# ---------------------------------------------------------------------- what cannot be done


def test_a_failure_tells_type_message_and_traceback_in_the_field_that_no_worker_drops() -> None:
    error = told(ask(fails, {"n": 7}))
    assert (error["error_type"], error["error_message"]) == ("KeyError", "'no 7'")
    assert "in fails" in error["error_traceback"]
    assert "flame_host" not in error["error_traceback"]


@pytest.mark.parametrize("given", [{"m": 1}, {"n": 1, "m": 2}])
def test_arguments_that_do_not_fit_are_told_with_the_function_and_nothing_of_ours(given: Any) -> None:
    error = told(ask(double, given))
    assert error["error_type"] == "TypeError"
    assert "double()" in error["error_message"]
    assert "flame_host" not in error["error_traceback"]


def test_leaving_is_a_failure_and_not_the_end_of_the_worker() -> None:
    answer = create_handler({"leaves": leaves})({"input": {"function_name": "leaves", "input": {}}})
    assert told(answer)["error_type"] == "SystemExit"


def test_a_result_that_is_not_json_is_told_as_such() -> None:
    def blob(n: int) -> bytes:
        return b"x" * n

    assert "cannot be told in JSON" in told(ask(blob, {"n": 3}))["error_message"]


@pytest.mark.parametrize("value", [float("nan"), [float("inf")], "\ud800"])
def test_what_only_python_takes_for_json_is_refused_too(value: Any) -> None:
    def gives(n: int) -> Any:
        return value

    assert "cannot be told in JSON" in told(ask(gives, {"n": 3}))["error_message"]


def test_private_methods_cannot_be_asked_for() -> None:
    error = told(ask(Counter, {"method": "_secret", "x": 1}))
    assert "no method '_secret'" in error["error_message"]
    assert "add, get" in error["error_message"]


def test_a_class_with_several_methods_needs_to_be_told_which() -> None:
    assert "names none" in told(ask(Counter, {"n": 1}))["error_message"]


@pytest.mark.parametrize("given", [{}, {"args": []}, {"function_name": "other", "n": 1}])
def test_what_names_nothing_is_answered_as_in_the_encoded_form(given: Any) -> None:
    assert "not found in registry. Available: ['double']" in ask(double, given)["error"]


def test_where_there_are_several_functions_the_job_has_to_name_one() -> None:
    handler = create_handler({"double": double, "later": later})
    assert "not found in registry" in handler({"input": {"n": 1}})["error"]


# ---------------------------------------------------------------------- what can


@pytest.mark.parametrize(
    ("function", "given", "value"),
    [
        (double, {"n": 5}, 10),
        (double, {"function_name": "double", "n": 5}, 10),
        (double, {"function_name": "double", "input": {"n": 5}}, 10),
        (later, {"n": 5}, 6),
        (whole, {"data": {"a": 1}}, {"a": 1}),
        (whole, {"message": "hi", "k": 2}, {"message": "hi", "k": 2}),
        (mirrored, {"point": {"x": 1, "y": 2}}, {"x": -1, "y": -2}),
        (cached, {"n": 5}, 5),
        (positional, {"a": 1, "c": 4}, [1, 2, 4]),
        (drawn, {"path": {"name": "p", "points": [{"x": 1}], "end": {"x": 2}}, "more": [{"x": 3}], "named": {"a": {"x": 4}}}, [1, 2, 3, 4]),
        (drawn, {"path": {"name": "p", "points": []}, "more": None}, []),
        (words, {"text": "a b"}, ["a", "b"]),
        (numbers, {"n": 3}, [0, 1, 2]),
    ],
)
def test_json_goes_in_and_json_comes_out(function: Any, given: Any, value: Any) -> None:
    assert ask(function, given) == value


def test_the_encoded_form_is_answered_as_ever() -> None:
    answer = ask(double, {"function_name": "double", "args": [serialize_result(4)]})
    assert answer == {"success": True, "result": serialize_result(8)}


def test_methods_of_a_class_share_one_instance() -> None:
    handler = create_handler({"Counter": Counter})
    assert [handler({"input": {"method": "add", "n": n}}) for n in (1, 3)] == [1, 4]
    assert handler({"input": {"function_name": "Counter", "method": "get", "input": {}}}) == 4


def test_a_stream_is_sent_as_it_comes_and_ends_with_what_went_wrong() -> None:
    async def all_of(function: Any, given: Any) -> list[Any]:
        return [part async for part in create_stream_handler({function.__name__: function})({"input": given})]

    assert asyncio.run(all_of(words, {"text": "a b c"})) == ["a", "b", "c"]
    assert asyncio.run(all_of(numbers, {"n": 2})) == [0, 1]
    assert asyncio.run(all_of(double, {"n": 2})) == [4]
    first, last = asyncio.run(all_of(breaks, {"n": 1}))
    assert (first, told(last)["error_message"]) == (1, "halfway")
    (answer,) = asyncio.run(all_of(words, {"function_name": "words", "args": [serialize_result("a b")]}))
    assert answer == {"success": True, "result": serialize_result(["a", "b"])}


def test_a_concurrent_handler_has_as_many_jobs_at_work_as_it_was_told() -> None:
    together = threading.Barrier(3, timeout=10)

    def meets(n: int) -> int:
        together.wait()
        return n

    async def meets_later(n: int) -> int:
        await asyncio.to_thread(together.wait)
        return n

    async def three(function: Any) -> list[Any]:
        handler = create_concurrent_handler({function.__name__: function}, 3)
        return await asyncio.gather(*(handler({"input": {"n": n}}) for n in range(3)))

    assert asyncio.run(three(meets)) == [0, 1, 2]
    assert asyncio.run(three(meets_later)) == [0, 1, 2]


class OutOfStock(Exception):
    def __init__(self, item: str, left: int) -> None:
        super().__init__(f"{item}: {left} left")
        self.item, self.left = item, left


def test_an_exception_keeps_its_type_and_attributes_on_its_way_to_another_endpoint() -> None:
    def sells(item: str) -> None:
        raise OutOfStock(item, 3)

    job_input = {"function_name": "sells", "args": [serialize_result("tea")], "errors": "nested"}
    failure = create_handler({"sells": sells})({"input": job_input})["failure"]
    error = pickle.loads(base64.b64decode(failure["exception"]))
    assert (type(error), str(error), error.item, error.left) == (OutOfStock, "tea: 3 left", "tea", 3)
