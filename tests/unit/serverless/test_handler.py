"""The generic handler: what goes wrong first, then everything it can call."""

from __future__ import annotations

import asyncio
import base64
import functools
import json
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from flame_host.handler import (
    PayloadError,
    PayloadTooLargeError,
    create_handler,
    deserialize_arguments,
    execute_function,
    load_manifest,
    serialize_result,
)


def encoded(value: Any) -> str:
    return base64.b64encode(cloudpickle.dumps(value)).decode()


def decoded(answer: dict[str, Any]) -> Any:
    assert answer["success"] is True, answer
    return cloudpickle.loads(base64.b64decode(answer["result"]))


def job(name: Any, *args: Any, kwargs: dict[str, Any] | None = None, **more: Any) -> dict[str, Any]:
    values = {"args": [encoded(value) for value in args], "kwargs": {key: encoded(value) for key, value in (kwargs or {}).items()}}
    return {"input": {"function_name": name, **values, **more}}


def add(a: Any, b: Any = 1) -> Any:
    return a + b


def fail(message: str = "broken") -> None:
    raise ValueError(message)


class Odd(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")


class Counter:
    made = 0

    def __init__(self, start: int = 0) -> None:
        type(self).made += 1
        self.value = start

    def __call__(self) -> int:
        return self.value

    def increment(self, by: int = 1) -> int:
        self.value += by
        return self.value

    async def later(self) -> int:
        await asyncio.sleep(0)
        return self.value

    def _private(self) -> str:
        return "private"


# ---------------------------------------------------------------------- what goes wrong


def test_a_missing_function_is_an_error_that_names_what_there_is() -> None:
    answer = create_handler({"add": add})(job("subtract"))
    message = "Function 'subtract' not found in registry. Available: ['add']"
    assert answer == {"success": False, "error": message, "traceback": ""}


def test_an_empty_registry_answers_that_nothing_is_there() -> None:
    assert "not found in registry. Available: []" in create_handler({})(job("add"))["error"]


@pytest.mark.parametrize("given", [{}, {"input": None}, {"input": {}}])
def test_a_job_without_input_is_a_missing_function(given: dict[str, Any]) -> None:
    assert create_handler({"add": add})(given)["error"].startswith("Function 'None' not found")


@pytest.mark.parametrize("given", ["text", 42, ["list"]])
def test_an_input_that_is_no_object_is_refused_by_its_type(given: object) -> None:
    error = f"Invalid job input type: expected dict, got {type(given).__name__}"
    assert create_handler({"add": add})({"input": given}) == {"success": False, "error": error, "traceback": ""}


def test_an_exception_comes_back_with_message_and_traceback() -> None:
    answer = create_handler({"fail": fail})(job("fail", "no luck"))
    assert (answer["success"], answer["error"]) == (False, "no luck")
    assert "ValueError: no luck" in answer["traceback"]
    assert "in fail" in answer["traceback"]


@pytest.mark.parametrize(
    ("raised", "error"),
    [
        (ValueError(), "ValueError"),
        (SystemExit(3), "SystemExit: 3"),
        (SystemExit(), "SystemExit"),
        (asyncio.CancelledError(), "CancelledError"),
    ],
)
def test_no_exception_escapes_and_no_error_is_empty(raised: BaseException, error: str) -> None:
    def function() -> None:
        raise raised

    assert create_handler({"f": function})(job("f"))["error"] == error


def test_an_exception_without_text_is_told_by_its_type() -> None:
    def function() -> None:
        raise Odd

    assert "raised RuntimeError" in create_handler({"f": function})(job("f"))["error"]


def test_sys_exit_in_a_coroutine_leaves_the_worker_alive() -> None:
    async def leave() -> None:
        sys.exit(4)

    async def stay() -> str:
        return "here"

    handler = create_handler({"leave": leave, "stay": stay})
    assert handler(job("leave"))["error"] == "SystemExit: 4"
    assert decoded(handler(job("stay"))) == "here"


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        ({"args": "AAAA"}, "args must be a list, not str"),
        ({"args": [7]}, "args[0] must be base64 text, not int"),
        ({"args": ["no base64!"]}, "args[0] is not base64"),
        ({"args": ["AAAA"]}, "args[0] cannot be read as cloudpickle/1"),
        ({"kwargs": []}, "kwargs must be an object, not list"),
        ({"kwargs": {"a": encoded(1), "b": None}}, "kwargs['b'] must be base64 text, not NoneType"),
        ({"format": "yaml/1"}, "the format 'yaml/1' is not admitted"),
        ({"format": ["x"]}, "the format ['x'] is not admitted"),
    ],
)
def test_a_bad_payload_is_an_error_that_names_the_part(payload: dict[str, Any], reason: str) -> None:
    answer = create_handler({"add": add})({"input": {"function_name": "add", **payload}})
    assert answer["success"] is False
    assert reason in answer["error"]


def test_an_argument_over_the_limit_is_refused_before_it_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_MAX_ARGUMENT_BYTES", "100")
    answer = create_handler({"add": add})(job("add", "x" * 200))
    assert "100 are allowed" in answer["error"]
    with pytest.raises(PayloadTooLargeError):
        deserialize_arguments(job("add", "x" * 200)["input"])


class Tattle:
    """Leaves a trace when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> Any:
        return Path.touch, (self.place,)


class Shop:
    def __init__(self, name: str) -> None:
        self.name = name

    def sell(self, what: str) -> str:
        return f"{self.name} sells {what}"

    @staticmethod
    def hours() -> str:
        return "9 to 5"

    @classmethod
    def named(cls, name: str) -> str:
        return cls(name).name


def call(method: str, *args: Any) -> dict[str, Any]:
    return {"execution_type": "class", "method_name": method, "method_args": [encoded(value) for value in args]}


@pytest.mark.parametrize(
    ("name", "args", "more", "reason"),
    [
        ("add", 3, {}, "add(): too many positional arguments"),
        ("add", 0, {}, "add(): missing a required argument: 'a'"),
        ("add", 1, {"kwargs": {"c": 1}}, "add(): got an unexpected keyword argument 'c'"),
        ("Shop", 0, call("sell", "x"), "Shop(): missing a required argument: 'name'"),
        ("Shop", 1, call("sell"), "Shop.sell(): missing a required argument: 'what'"),
        ("Shop", 1, call("hours", "x"), "Shop.hours(): too many positional arguments"),
        ("Shop", 1, call("named"), "Shop.named(): missing a required argument: 'name'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_any_is_read(
    tmp_path: Path, name: str, args: int, more: dict[str, Any], reason: str
) -> None:
    trace = tmp_path / "trace"
    answer = create_handler({"add": add, "Shop": Shop})(job(name, *[Tattle(trace)] * args, **more))
    assert answer["error"].startswith(reason)
    assert not trace.exists()


def test_arguments_a_decorator_supplies_need_not_be_given() -> None:
    @functools.wraps(add)
    def with_ten(*args: Any) -> Any:
        return add(*args, 10)

    assert decoded(create_handler({"add": with_ten})(job("add", 1))) == 11
    assert decoded(create_handler({"max": max, "shop": Shop})(job("max", 1, 2))) == 2
    assert decoded(create_handler({"Shop": Shop})(job("Shop", "ours", **call("hours")))) == "9 to 5"


def test_a_result_over_the_limit_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_MAX_RESULT_BYTES", "100")
    assert "the result has" in create_handler({"add": add})(job("add", "x" * 100, "y" * 100))["error"]
    with pytest.raises(PayloadTooLargeError):
        serialize_result("x" * 200)


def test_a_result_that_cannot_travel_is_an_error() -> None:
    answer = create_handler({"lock": threading.Lock})(job("lock"))
    assert (answer["success"], "lock" in answer["error"]) == (False, True)


def test_a_method_that_is_not_there_is_an_error() -> None:
    answer = create_handler({"Counter": Counter})(job("Counter", execution_type="class", method_name="missing"))
    assert "no attribute 'missing'" in answer["error"]


def test_a_constructor_that_fails_is_tried_again_with_the_next_job() -> None:
    class Moody:
        tries = 0

        def __init__(self) -> None:
            type(self).tries += 1
            if self.tries == 1:
                raise OSError("not yet")

        def __call__(self) -> int:
            return self.tries

    handler = create_handler({"Moody": Moody})
    assert handler(job("Moody", execution_type="class"))["error"] == "not yet"
    assert decoded(handler(job("Moody", execution_type="class"))) == 2


def test_nested_errors_travel_whole_for_a_caller_that_asks() -> None:
    answer = create_handler({"fail": fail})(job("fail", "no luck", errors="nested"))
    assert "error" not in answer  # the workers this runs under would take it out
    failure = answer["failure"]
    assert (failure["type"], failure["error"]) == ("builtins.ValueError", "no luck")
    assert repr(cloudpickle.loads(base64.b64decode(failure["exception"]))) == "ValueError('no luck')"


def test_an_exception_that_cannot_travel_is_told_about() -> None:
    class Holding(Exception):
        def __init__(self) -> None:
            super().__init__("held")
            self.lock = threading.Lock()

    def function() -> None:
        raise Holding

    failure = create_handler({"f": function})(job("f", errors="nested"))["failure"]
    assert (failure["error"], failure["exception"]) == ("held", None)


# ---------------------------------------------------------------------- values and arguments


@pytest.mark.parametrize("value", [1, 2.5, "text", b"bytes", True, None, [1, "a"], {"k": [1]}, (1, 2), {1, 2}, 1j, [], {}, ""])
def test_values_come_back_as_they_were_sent(value: object) -> None:
    assert decoded(create_handler({"same": lambda item: item})(job("same", value))) == value
    assert cloudpickle.loads(base64.b64decode(serialize_result(value))) == value


@pytest.mark.parametrize(
    ("args", "kwargs"), [([], {}), ([1, "a"], {}), ([], {"x": 1, "y": [2]}), ([1], {"y": {"z": 2}})],
    ids=["none", "args only", "kwargs only", "mixed"],
)  # fmt: skip
def test_arguments_are_decoded(args: list[Any], kwargs: dict[str, Any]) -> None:
    assert deserialize_arguments(job("f", *args, kwargs=kwargs)["input"]) == (args, kwargs)


def test_absent_arguments_are_none_at_all() -> None:
    assert deserialize_arguments({}) == ([], {})


def test_what_is_serialized_can_be_given_as_an_argument() -> None:
    assert deserialize_arguments({"args": [serialize_result({"a": [1, 2]})]}) == ([{"a": [1, 2]}], {})


def test_arguments_that_are_none_of_that_raise() -> None:
    with pytest.raises(PayloadError, match="args must be a list"):
        deserialize_arguments({"args": {"0": "AAAA"}})


def test_lambdas_and_closures_travel_both_ways() -> None:
    factor = 3
    handler = create_handler({"apply": lambda function, value: function(value), "adder": lambda n: lambda x: x + n})
    assert decoded(handler(job("apply", lambda value: value * factor, 5))) == 15
    assert decoded(handler(job("adder", 4)))(1) == 5


# ---------------------------------------------------------------------- what can be called


def test_a_function_takes_positional_and_keyword_arguments() -> None:
    handler = create_handler({"add": add})
    assert decoded(handler(job("add", 2, 3))) == 5
    assert decoded(handler(job("add", kwargs={"a": 2, "b": 3}))) == 5
    assert decoded(handler(job("add", 2, kwargs={"b": 8}))) == 10


def test_one_handler_serves_several_functions() -> None:
    handler = create_handler({"add": add, "upper": str.upper})
    assert (decoded(handler(job("add", 1))), decoded(handler(job("upper", "a")))) == (2, "A")


@pytest.mark.parametrize("kind", [None, "function", "anything else"])
def test_whatever_is_not_a_class_job_calls_directly(kind: str | None) -> None:
    more = {} if kind is None else {"execution_type": kind}
    assert decoded(create_handler({"add": add})(job("add", 1, **more))) == 2


def test_an_answer_has_the_documented_keys_only() -> None:
    assert create_handler({"add": add})(job("add", 1)).keys() == {"success", "result"}
    assert create_handler({"fail": fail})(job("fail")).keys() == {"success", "error", "traceback"}


def test_a_result_of_none_is_a_result() -> None:
    assert decoded(create_handler({"f": lambda: None})(job("f"))) is None


def test_an_async_function_is_awaited() -> None:
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    assert decoded(create_handler({"later": later})(job("later", 4))) == 8


def test_an_async_function_works_inside_a_running_loop() -> None:
    async def later(value: int) -> int:
        await asyncio.sleep(0)
        return value * 2

    async def worker() -> dict[str, Any]:  # as the real one does, it calls the handler on its own loop
        return create_handler({"later": later})(job("later", 4))

    assert decoded(asyncio.run(worker())) == 8


def test_a_function_may_run_a_loop_of_its_own_inside_a_running_loop() -> None:
    async def inner() -> str:
        return "inner"

    def outer() -> str:
        return asyncio.run(inner())

    async def worker() -> dict[str, Any]:
        return create_handler({"outer": outer})(job("outer"))

    assert decoded(asyncio.run(worker())) == "inner"


def test_what_a_class_keeps_on_the_loop_stays_valid_from_job_to_job() -> None:
    class Client:
        def __init__(self) -> None:
            self.lock: asyncio.Lock | None = None
            self.loop: object = None

        async def use(self) -> bool:
            self.lock = self.lock or asyncio.Lock()
            before, self.loop = self.loop, asyncio.get_running_loop()
            async with self.lock:
                return before is None or before is self.loop

    handler = create_handler({"Client": Client})
    use = job("Client", execution_type="class", method_name="use")
    assert decoded(handler(use))
    assert decoded(handler(use))


def test_generators_become_lists() -> None:
    def count(n: int) -> Iterator[int]:
        yield from range(n)

    async def acount(n: int) -> AsyncIterator[int]:
        for number in range(n):
            yield number

    handler = create_handler({"count": count, "acount": acount})
    assert decoded(handler(job("count", 3))) == decoded(handler(job("acount", 3))) == [0, 1, 2]


def test_a_generator_that_fails_half_way_is_an_error() -> None:
    def count() -> Iterator[int]:
        yield 1
        raise ValueError("half way")

    assert create_handler({"count": count})(job("count"))["error"] == "half way"


def test_a_class_is_instantiated_and_its_method_called() -> None:
    given = job("Counter", 5, execution_type="class", method_name="increment", method_args=[encoded(2)])
    assert decoded(create_handler({"Counter": Counter})(given)) == 7


def test_constructor_and_method_take_keywords() -> None:
    given = job("Counter", kwargs={"start": 5}, execution_type="class", method_name="increment", method_kwargs={"by": encoded(3)})
    assert decoded(create_handler({"Counter": Counter})(given)) == 8


def test_without_a_method_name_the_instance_is_called() -> None:
    assert decoded(create_handler({"Counter": Counter})(job("Counter", 9, execution_type="class"))) == 9


def test_an_async_method_is_awaited() -> None:
    assert decoded(create_handler({"Counter": Counter})(job("Counter", 4, execution_type="class", method_name="later"))) == 4


def test_instances_are_kept_for_each_constructor_arguments() -> None:
    handler = create_handler({"Counter": Counter})
    before = Counter.made
    add_one = job("Counter", 10, execution_type="class", method_name="increment")
    assert [decoded(handler(add_one)) for _ in range(3)] == [11, 12, 13]
    assert decoded(handler(job("Counter", 20, execution_type="class", method_name="increment"))) == 21
    assert Counter.made == before + 2


def test_two_handlers_share_no_instances() -> None:
    add_one = job("Counter", execution_type="class", method_name="increment")
    assert [decoded(create_handler({"Counter": Counter})(add_one)) for _ in range(2)] == [1, 1]


def test_execute_function_calls_functions_classes_and_coroutines() -> None:
    async def later() -> str:
        return "done"

    assert execute_function(add, [1], {"b": 2}, "function", {}) == 3
    assert execute_function(Counter, [1], {}, "class", {"method_name": "increment", "method_args": [encoded(4)]}) == 5
    assert execute_function(later, [], {}, "function", {}) == "done"


# ---------------------------------------------------------------------- policy and formats


def test_where_pickle_is_denied_it_is_not_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FLAME_POLICY_PICKLE", "deny")
    witness = tmp_path / "ran"

    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (witness,)

    handler = create_handler({"add": add})
    named = handler(job("add", Bomb(), format="cloudpickle/1"))
    assert "pickle is denied by policy; this worker reads msgpack/1, json/1" in named["error"]
    assert handler(job("add", Bomb()))["success"] is False
    assert not witness.exists()


@pytest.mark.parametrize("variable", [("FLAME_POLICY_PICKLE", "deny"), ("FLAME_POLICY", "pickle=deny")])
def test_json_is_spoken_where_pickle_is_denied(monkeypatch: pytest.MonkeyPatch, variable: tuple[str, str]) -> None:
    monkeypatch.setenv(*variable)
    given = {"function_name": "add", "format": "json/1", "args": [base64.b64encode(b"[1]").decode(), base64.b64encode(b"[2]").decode()]}
    answer = create_handler({"add": add})({"input": given})
    assert (json.loads(base64.b64decode(answer["result"])), answer["format"]) == ([1, 2], "json/1")


def test_msgpack_is_spoken_where_its_plugin_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    codec = pytest.importorskip("flame_serialize_msgpack.codec")
    monkeypatch.setenv("FLAME_POLICY_PICKLE", "deny")
    given = {"function_name": "add", "args": [base64.b64encode(codec.dumps((1, 2))).decode()], "kwargs": {"b": ""}}
    given["kwargs"] = {"b": base64.b64encode(codec.dumps((3,))).decode()}
    answer = create_handler({"add": add})({"input": given})
    assert answer["format"] == "msgpack/1"
    assert codec.loads(base64.b64decode(answer["result"])) == (1, 2, 3)


def test_private_methods_are_out_of_reach_where_pickle_is_denied(monkeypatch: pytest.MonkeyPatch) -> None:
    private = {"function_name": "Counter", "execution_type": "class", "method_name": "_private"}
    assert decoded(create_handler({"Counter": Counter})({"input": private})) == "private"
    monkeypatch.setenv("FLAME_POLICY_PICKLE", "deny")
    assert create_handler({"Counter": Counter})({"input": private})["error"] == "method '_private' is private"


def test_the_manifest_can_deny_pickle(tmp_path: Path) -> None:
    (tmp_path / "flash_manifest.json").write_text(json.dumps({"version": "1.0", "policy": {"pickle": "deny"}}))
    assert "pickle is denied" in create_handler({"add": add})(job("add", 1, format="cloudpickle/1"))["error"]


# ---------------------------------------------------------------------- the manifest


def test_a_broken_manifest_that_is_named_gives_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "flash_manifest.json").write_text(json.dumps({"version": "1.0", "resources": {"here": {}}}))
    (tmp_path / "broken.json").write_text("{")
    assert load_manifest(tmp_path / "broken.json") == {"resources": {}, "function_registry": {}}


@pytest.mark.parametrize("content", ["[1]", '{"version": "2.0"}', '{"resources": []}'])
def test_a_manifest_of_another_kind_or_major_version_is_not_used(tmp_path: Path, content: str) -> None:
    (tmp_path / "m.json").write_text(content)
    assert load_manifest(tmp_path / "m.json") == {"resources": {}, "function_registry": {}}


def test_no_manifest_gives_an_empty_one_and_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    assert load_manifest() == {"resources": {}, "function_registry": {}}
    assert "no flash_manifest.json was found" in caplog.text


def test_a_named_manifest_that_is_missing_is_looked_for_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "flash_manifest.json").write_text(json.dumps({"version": "1.7", "function_registry": {"f": "here"}}))
    assert load_manifest(tmp_path / "missing.json")["function_registry"] == {"f": "here"}


@pytest.mark.parametrize("variable", ["FLAME_MANIFEST_PATH", "FLASH_MANIFEST_PATH"])
def test_the_environment_names_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    (tmp_path / "there.json").write_text(json.dumps({"function_registry": {"f": "there"}}))
    monkeypatch.setenv(variable, str(tmp_path / "there.json"))
    assert load_manifest()["function_registry"] == {"f": "there"}
