"""``@remote`` in a program of one's own: calls run in workers of their resource; and in a deployed worker, where they are routed."""

from __future__ import annotations

import asyncio
import inspect
import json
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flamepy import CpuResource, GpuResource, remote
from flamepy._remote.services import close_resources

from flame_host.api import ConfigError
from flame_host.serverless.routing import EndpointError

WORK = """
import asyncio, os
from flamepy import CpuResource, GpuResource, remote

gpu = GpuResource(name="gpu-1", env={"MODE": "fast"})
cpu = CpuResource(name="cpu-1")

@remote(gpu)
def double(x: int) -> int:
    "Twice as much."
    return x * 2

@remote(gpu)
def where(deep: bool = False):
    return (os.getpid(), where()) if deep else os.getpid()

@remote(gpu)
def mode():
    return os.environ["MODE"]

@remote(cpu)
async def later(x):
    await asyncio.sleep(0)
    return x, double(x)

@remote(gpu)
def count(n):
    yield from range(n)

@remote(gpu)
async def acount(n):
    for number in range(n):
        yield number

@remote(cpu)
def fail(x):
    raise ValueError(f"no {x}")

@remote(cpu)
class Counter:
    kind = "counter"

    def __init__(self, start=0):
        self.value = start

    def add(self, n):
        self.value += n
        return self.value

    async def get(self):
        return self.value

    def __call__(self):
        return "called"
"""


@pytest.fixture
def work(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    for variable in ("FLASH_RESOURCE_NAME", "RUNPOD_ENDPOINT_ID"):
        monkeypatch.delenv(variable, raising=False)
    name = f"work_{abs(hash(str(project)))}"
    (project / f"{name}.py").write_text(WORK)
    monkeypatch.syspath_prepend(str(project))
    module = __import__(name)
    yield module
    close_resources()
    sys.modules.pop(name, None)


# ---------------------------------------------------------------------- unhappy


@pytest.mark.parametrize("given", [42, "gpu", object()])
def test_something_that_is_no_resource_is_refused(given: Any) -> None:
    with pytest.raises(ConfigError, match="neither a resource nor a function"):
        remote(given)


def test_only_functions_and_classes_can_be_decorated() -> None:
    with pytest.raises(ConfigError, match="functions and classes"):
        remote(CpuResource(name="c"))(42)  # type: ignore[arg-type]


def test_decorating_twice_is_refused() -> None:
    @remote
    def function() -> None: ...

    with pytest.raises(ConfigError, match="twice"):
        remote(CpuResource(name="c"))(function)


def test_an_exception_of_the_function_is_raised_here(work: Any) -> None:
    with pytest.raises(ValueError, match="no luck"):
        work.fail("luck")


def test_wrong_constructor_arguments_are_refused_at_once(work: Any) -> None:
    with pytest.raises(TypeError, match="too many positional"):
        work.Counter(1, 2)


def test_only_methods_of_a_remote_instance_can_be_used(work: Any) -> None:
    with pytest.raises(AttributeError, match="does not exist"):
        work.Counter().missing()
    with pytest.raises(AttributeError, match="only methods can be used from afar"):
        _ = work.Counter().kind


# ---------------------------------------------------------------------- as it was


def test_a_decorated_function_looks_like_the_function(work: Any) -> None:
    assert (work.double.__name__, work.double.__doc__) == ("double", "Twice as much.")
    assert str(inspect.signature(work.double)) == "(x: int) -> int"
    assert work.double.resource == GpuResource(name="gpu-1", env={"MODE": "fast"})
    assert work.double.local(4) == 8


def test_a_decorated_class_looks_like_the_class(work: Any) -> None:
    assert (work.Counter.__name__, work.Counter.kind) == ("Counter", "counter")
    assert isinstance(work.Counter.local(3), work.Counter)
    assert isinstance(work.Counter(3), work.Counter)
    assert repr(work.Counter(3)) == "<Counter(3) on resource 'cpu-1'>"

    class Derived(work.Counter):
        pass

    assert Derived(4).add(1) == 5


def test_a_decorated_function_is_pickled_by_where_it_is_found(work: Any) -> None:
    assert pickle.loads(pickle.dumps(work.double)) is work.double
    assert pickle.loads(pickle.dumps(work.Counter)) is work.Counter


def test_local_leaves_a_function_as_it_is() -> None:
    def function() -> int:
        return 1

    assert remote(CpuResource(name="c"), local=True)(function) is function


# ---------------------------------------------------------------------- in a program of one's own


def test_a_function_runs_in_a_worker_of_its_resource(work: Any) -> None:
    import os

    assert work.double(21) == 42
    assert work.where() != os.getpid()
    assert work.mode() == "fast"


def test_a_function_calls_its_own_resource_directly(work: Any) -> None:
    outer, inner = work.where(deep=True)
    assert outer == inner


def test_an_async_function_is_awaited_and_may_call_another_resource(work: Any) -> None:
    async def main() -> list[Any]:
        return list(await asyncio.gather(work.later(1), work.later(2)))

    assert asyncio.run(main()) == [(1, 2), (2, 4)]


def test_generators_give_their_items(work: Any) -> None:
    async def main() -> list[int]:
        return [number async for number in work.acount(3)]

    assert list(work.count(3)) == asyncio.run(main()) == [0, 1, 2]


def test_calls_can_be_made_without_waiting(work: Any) -> None:
    futures = [work.double.submit(number) for number in range(4)]
    assert [future.get() for future in futures] == [0, 2, 4, 6]


def test_an_instance_keeps_its_state_and_equal_arguments_are_one_instance(work: Any) -> None:
    counter = work.Counter(10)
    assert (counter.add(1), counter.add(2), work.Counter(10).add(1), work.Counter(20).add(1)) == (11, 13, 14, 21)
    assert asyncio.run(counter.get()) == 14
    assert counter() == "called"


def test_a_script_s_own_functions_run_too(project: Path) -> None:
    script = """
        from flamepy import CpuResource, remote

        offset = 5

        @remote(CpuResource(name="cpu-1"))
        def shifted(x):
            return x + offset if x < 3 else shifted(x - 1)

        @remote(CpuResource(name="cpu-1"))
        class Box:
            def __init__(self, content):
                self.content = content
            def get(self):
                return shifted(self.content)

        if __name__ == "__main__":
            print(shifted(7), Box(2).get())
    """
    (project / "script.py").write_text(textwrap.dedent(script))
    done = subprocess.run([sys.executable, "script.py"], cwd=project, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "7 7\n", done.stderr


# ---------------------------------------------------------------------- deployed


def test_in_its_own_worker_a_function_is_called_directly(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import os

    monkeypatch.setenv("FLAME_RESOURCE_NAME", "gpu-1")
    assert work.where() == os.getpid()


def test_in_another_worker_a_function_without_a_url_is_an_error(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_RESOURCE_NAME", "cpu-1")
    with pytest.raises(EndpointError, match="lives at endpoint 'gpu-1'"):
        work.double(1)
    with pytest.raises(EndpointError, match="lives at endpoint 'gpu-1'"):
        list(work.count(1))
    assert isinstance(work.Counter(1).add(1), int)  # of this very resource


def test_in_a_deployed_worker_submit_says_why_it_cannot_and_what_can(work: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_RESOURCE_NAME", "cpu-1")
    with pytest.raises(
        ConfigError, match=r"submit\(\) is for a program of one's own; this is a worker of endpoint 'cpu-1'(.|\n)*asyncio\.gather"
    ):
        work.double.submit(1)


def test_the_manifest_says_where_a_renamed_function_lives(work: Any, monkeypatch: pytest.MonkeyPatch, project: Path) -> None:
    functions = [{"name": "served", "module": "x", "original": f"{work.__name__}:double"}]
    (project / "m.json").write_text(json.dumps({"version": "1.0", "resources": {"moved": {"functions": functions}}}))
    monkeypatch.setenv("FLAME_MANIFEST_PATH", str(project / "m.json"))
    monkeypatch.setenv("FLAME_RESOURCE_NAME", "cpu-2")
    with pytest.raises(EndpointError, match="served lives at endpoint 'moved'"):
        work.double(1)
    monkeypatch.setenv("FLAME_RESOURCE_NAME", "moved")
    assert work.double(1) == 2
