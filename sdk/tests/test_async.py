"""asyncio programs, Runners inside tasks, and programs that are interrupted."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from flamepy import FlameAsyncRunner, FlameRunner, FlameRunnerService, ObjectExpr, Runner


def add(a: int, b: int = 0) -> int:
    return a + b


def fail() -> None:
    raise LookupError("remote")


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def naps(count: int) -> None:
    for _ in range(count):
        time.sleep(0.1)


async def test_awaiting_an_async_runners_call_that_fails_raises_there(engine: str) -> None:
    async with FlameAsyncRunner("async", engine=engine) as runner:
        with pytest.raises(LookupError, match="remote"):
            await runner.service(fail)()


async def test_awaiting_an_async_runners_call_gives_a_done_expression(engine: str) -> None:
    async with FlameAsyncRunner("async", engine=engine) as runner:
        service = runner.service(add)
        assert isinstance(service, FlameRunnerService)
        expression = await service(1, 2)
        assert isinstance(expression, ObjectExpr)
        assert expression.done()
        assert expression.get() == 3
        assert (await service(expression, 1)).get() == 4


async def test_a_plain_runner_works_in_async_with(engine: str) -> None:
    async with Runner("async", engine=engine) as runner:
        assert await runner.service(add)(1, 2) == 3


async def test_the_loop_goes_on_while_calls_run() -> None:
    async with Runner("async", engine="local") as runner:
        future = runner.service(nap)(0.3)
        ticks = 0
        while not future.done():
            await asyncio.sleep(0.02)
            ticks += 1
        assert ticks >= 5


async def test_a_wait_that_is_given_up_cancels_the_call() -> None:
    async with Runner("async", engine="local") as runner:
        future = runner.service(naps)(300)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(future), 0.5)
        assert future.wait(10)


async def test_an_async_generator_is_iterated_asynchronously() -> None:
    async def count(n: int) -> AsyncIterator[int]:
        for number in range(n):
            await asyncio.sleep(0)
            yield number

    async with Runner("async", engine="local") as runner:
        assert [item async for item in runner.service(count)(200)] == list(range(200))


def test_the_first_proposals_names_are_runners() -> None:
    assert issubclass(FlameRunner, Runner)
    assert issubclass(FlameAsyncRunner, Runner)


def test_running_calls_can_be_cancelled_and_the_service_goes_on(local: Runner) -> None:
    service = local.service(nap, max_instances=1)
    service(0).get()
    running, queued = service(30), service(30)
    time.sleep(0.2)
    assert queued.cancel()
    assert running.cancel(force=True)
    assert running.wait(10)
    assert service(0).get(10) == 0


def test_a_runner_can_be_used_inside_a_task(local: Runner) -> None:
    def outer(n: int) -> int:
        from flamepy import Runner

        with Runner("inner", engine="local", package=False) as rr:
            return sum(rr.service(lambda x: x + 1).map(range(n)))

    assert local.service(outer)(3).get(60) == 6


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_program_leaves_no_process_behind(number: int, write: Callable[..., Path], project: Path) -> None:
    write(
        "main.py",
        "import os, time\nfrom flamepy import Runner\n"
        "def work(x):\n    print(os.getpid(), flush=True)\n    time.sleep(60)\n"
        "with Runner('stop', engine='local') as rr:\n    rr.service(work)(1).get()\n",
    )
    program = subprocess.Popen(
        [sys.executable, "main.py"],
        cwd=project,
        stderr=subprocess.PIPE,
        text=True,
        # A shell that runs the tests in the background has them ignore it, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert program.stderr is not None
    worker = int(program.stderr.readline().split()[-1])
    program.send_signal(number)
    said = program.communicate(timeout=20)[1]
    assert said.count("Traceback") <= 1
    until = time.monotonic() + 5
    while _alive(worker) and time.monotonic() < until:
        time.sleep(0.05)
    assert not _alive(worker)


def _alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as status:
            return status.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        return not os.path.isdir("/proc/self")
