"""The programs of the Runner documents, unchanged, as a user would run them: in a project, with ``python main.py``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

COUNTER = """
class Counter:
    def __init__(self, initial: int = 0):
        self._count = initial

    def add(self, a: int) -> int:
        self._count = self._count + a
        return self._count

    def get_counter(self) -> int:
        return self._count
"""

FUNCTION = """
from flamepy import Runner

def sum_fn(a: int, b: int) -> int:
    return a + b

with Runner("test") as rr:
    sum_service = rr.service(sum_fn)
    result = sum_service(1, 3)
    print(result.get())
"""

STATE = (
    "from flamepy.rl import Runner\n"
    + COUNTER
    + """
with Runner("counter-app") as rr:
    cnt_s = rr.service(Counter)
    cnt_s.add(1)
    cnt_s.add(3)
    print(cnt_s.get_counter().get())

    cnt_os = rr.service(Counter(10))
    cnt_os.add(1)
    cnt_os.add(3)
    print(cnt_os.get_counter().get())
"""
)

FUTURES = (
    "from flamepy.runner import Runner\n"
    + COUNTER
    + """
with Runner("counter-app") as rr:
    cnt_os = rr.service(Counter(10))
    cnt_os.add(1)
    cnt_os.add(3)
    res_r = cnt_os.get_counter()

    cnt_os.add(res_r)
    res_r2 = cnt_os.get_counter()
    print(res_r2.get())
"""
)

PROPOSAL_ASYNC = """
import asyncio
from flamepy import FlameRunner, FlameAsyncRunner

def sum(a: int, b: int) -> int:
    return a + b

async def main():
    async with FlameAsyncRunner("test") as runner:
        sum_s = runner.service(sum)
        res_r = await sum_s(1, 2)
        print(res_r.get())

    with FlameAsyncRunner("test") as runner:
        pass

asyncio.run(main())
"""

PROPOSAL_SYNC = """
from flamepy import FlameRunner

class Counter:
    def __init__(self, c = 0):
        self._count = c

    def add(self, a: int):
        self._count = self._count + a

    def get_counter(self) -> int:
        return self._count

with FlameRunner("test") as runner:
    cnt_s = runner.service(Counter)
    cnt_s.add(1)
    cnt_s.add(3)
    res_r = cnt_s.get_counter()
    print(res_r.get())

    cnt_os = runner.service(Counter(10))
    cnt_os.add(1)
    cnt_os.add(3)
    res_r = cnt_os.get_counter()
    print(res_r.get())

    cnt_os.add(res_r)
    res_r = cnt_os.get_counter()
    print(res_r.get())
"""

FLMRUN = """
import flamepy

def sum(a: int, b: int) -> int:
    return a + b

ctx = flamepy.RunnerContext(execution_object=sum)
ssn = flamepy.create_session("flmrun", ctx)

req = flamepy.RunnerRequest(method=None, args=(1, 2))
task = ssn.invoke(req)

result = task.get()
print(result)

ssn.close()
"""

REFERENCES = """
from flamepy import Runner, RunnerContext, RunnerRequest, RunnerServiceKind, create_session, get_object

ctx = RunnerContext(
    execution_object=lambda x: x * 2,
    kind=RunnerServiceKind.Stateless,
)
ssn = create_session("flmrun", ctx)
req = RunnerRequest(method=None, args=(5,))
result_ref = ssn.invoke(req)

assert hasattr(result_ref, 'url')
assert hasattr(result_ref, 'version')

result = get_object(result_ref)
assert result == 10
print(result)
"""

PROGRAMS = {
    "001 function": (FUNCTION, "4"),
    "001 class with state": (STATE, "4 14"),
    "001 futures as arguments": (FUTURES, "28"),
    "003 asynchronous runner": (PROPOSAL_ASYNC, "3"),
    "003 class, instance, chained": (PROPOSAL_SYNC, "4 14 28"),
    "002 flmrun session": (FLMRUN, "3"),
    "000 results are references": (REFERENCES, "10"),
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_of_the_documents_runs_unchanged(name: str, engine: str, write: Callable[..., Path], project: Path) -> None:
    program, expected = PROGRAMS[name]
    write("main.py", program)
    done = subprocess.run(
        [sys.executable, "main.py"],
        cwd=project,
        env={**os.environ, "FLAME_ENGINE": engine},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.split() == expected.split(), done.stderr
    assert done.stderr == ""
    assert done.returncode == 0
