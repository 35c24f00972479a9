"""CPython's own test cases for executors, run with a Runner's.

Left out are those about how the standard library's executors are made (``max_workers``, names of threads, start methods) and those that
start programs which name an executor class; what these ask is asked by our own tests below.
"""

from __future__ import annotations

import importlib
import io
import os
import subprocess
import sys
import types
import unittest
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner

_CASES = {
    "ExecutorTest": ("executor", {"test_max_workers_negative"}),
    "ExecutorShutdownTest": (
        "test_shutdown",
        {"test_interpreter_shutdown", "test_submit_after_interpreter_shutdown", "test_hang_gh83386", "test_hang_gh94440"},
    ),
    # A lock of this process is shared by threads of this process only.
    "WaitTests": (
        "test_wait",
        {"test_first_completed", "test_first_exception", "test_first_exception_some_already_complete", "test_all_completed"},
    ),
    "AsCompletedTests": ("test_as_completed", set()),
}


def _module(part: str) -> types.ModuleType | None:
    """From Python 3.12 on they are several modules."""
    for name in (f"test.test_concurrent_futures.{part}", "test.test_concurrent_futures"):
        try:
            module = importlib.import_module(name)
        except (ImportError, unittest.SkipTest):
            continue
        if not hasattr(module, "__path__"):
            return module
    return None


@pytest.mark.parametrize("name", _CASES)
def test_cpythons_own_executor_cases_pass(name: str, local: Runner) -> None:
    part, left_out = _CASES[name]
    module = _module(part)
    if module is None:
        pytest.skip("this Python was installed without its tests")

    class Cases(getattr(module, name), unittest.TestCase):  # type: ignore[misc]
        worker_count = 5

        def setUp(self) -> None:
            self.executor = local.executor()
            self.executor.submit(int).result()  # a worker is there, as of a pool that has begun

        def tearDown(self) -> None:
            self.executor.shutdown()

        def executor_type(self, **options: Any) -> Any:
            return local.executor()

    tests = [Cases(test) for test in unittest.TestLoader().getTestCaseNames(Cases) if test not in left_out]
    assert len(tests) >= 3
    output = io.StringIO()
    result = unittest.TextTestRunner(output, verbosity=2).run(unittest.TestSuite(tests))
    assert result.wasSuccessful(), output.getvalue()


def _program(project: Path, text: str) -> subprocess.CompletedProcess[str]:
    (project / "main.py").write_text("import time\nfrom flamepy import Runner\n" + text)
    return subprocess.run([sys.executable, "main.py"], cwd=project, env=dict(os.environ), capture_output=True, text=True, timeout=60)


def test_pending_calls_finish_when_the_program_ends(project: Path) -> None:
    done = _program(
        project,
        "def late(name):\n    time.sleep(0.3)\n    open(name, 'w').close()\n"
        "here = __import__('os').getcwd()\n"
        "executor = Runner('late', package=False).executor()\n"
        "for name in 'abc':\n    executor.submit(late, f'{here}/{name}')\n"
        "executor.shutdown(wait=False)\n",
    )
    assert done.returncode == 0, done.stderr
    if not (3, 12) <= sys.version_info < (3, 12, 3):  # where no thread can be started any more, and the engine says so
        assert done.stderr == ""
    assert {path.name for path in project.iterdir()} >= {"a", "b", "c"}


def test_nothing_can_be_submitted_once_the_program_ends(project: Path) -> None:
    done = _program(
        project,
        "import atexit\n"
        "@atexit.register\n"
        "def last():\n    try:\n        executor.submit(id, None)\n    except RuntimeError as error:\n        print(error)\n"
        "executor = Runner('late', package=False).executor()\n"
        "executor.submit(id, 42).result()\n",
    )
    assert done.stdout.startswith("cannot schedule new futures")
    assert done.stderr == ""


class Scale:
    """Unhashable, with a state, and callable."""

    __hash__ = None  # type: ignore[assignment]

    def __init__(self, factor: int) -> None:
        self.factor = factor

    def __call__(self, x: int) -> int:
        return self.factor * x

    def plus(self, x: int) -> int:
        return self.factor + x


def _both(fn: str, /, **more: str) -> tuple[str, dict[str, str]]:
    return fn, more


def test_anything_is_called_as_it_is_at_each_call(local: Runner) -> None:
    executor = local.executor()
    assert executor.submit(int, "3").result() == 3
    assert isinstance(executor.submit(Scale, 5).result(), Scale)
    scale = Scale(2)
    first = executor.submit(scale, 10)
    scale.factor = 3
    assert (first.result(), executor.submit(scale, 10).result(), executor.submit(scale.plus, 1).result()) == (20, 30, 4)
    assert executor.submit(_both, "x", fn="y", self="z", key="k").result() == ("x", {"fn": "y", "self": "z", "key": "k"})
    step = 1
    assert executor.submit(lambda: step).result() == 1
    step = 2
    assert executor.submit(lambda: step).result() == 2
    assert list(executor.map(scale, range(3), chunksize=2)) == [0, 3, 6]


def test_one_session_serves_any_number_of_callables(local: Runner) -> None:
    import functools

    executor = local.executor()
    before = len(local.services)
    assert sum(executor.submit(functools.partial(pow, base), 2).result() for base in range(320)) == sum(base**2 for base in range(320))
    assert len(local.services) <= max(before, 1)


def test_a_large_callable_is_stored_once_for_all_calls_of_a_map(local: Runner) -> None:
    table = bytes(range(256)) * 4096
    assert list(local.executor().map(table.__getitem__, range(5))) == [0, 1, 2, 3, 4]


def test_wrong_arguments_are_refused_where_the_call_is_made(local: Runner) -> None:
    with pytest.raises(TypeError, match=r"Scale\.plus\(x: 'int'\)|plus"):
        local.executor().submit(Scale(1).plus, 1, 2)
    with pytest.raises(TypeError, match="not callable"):
        local.submit(3)  # type: ignore[arg-type]


def test_what_runs_is_left_running_when_the_rest_is_cancelled(local: Runner) -> None:
    import time

    executor = local.executor()
    futures = [executor.submit(time.sleep, 0.2) for _ in range(30)]
    while not futures[0].running():
        time.sleep(0.01)
    executor.shutdown(cancel_futures=True)
    assert futures[0].exception() is None
    assert futures[-1].cancelled()


def test_a_closed_runner_says_so_as_an_executor_does() -> None:
    with Runner("short", package=False, engine="inline") as rr:
        executor = rr.executor()
    with pytest.raises(RuntimeError, match="Runner 'short' was closed"):
        executor.submit(int)
