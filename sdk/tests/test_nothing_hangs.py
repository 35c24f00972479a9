"""Calls that once waited for ever, or ended in the wrong way; each in the time of a test's patience."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner

from flame_host.api import FlameError, ProvisionError, RemoteError, WorkerCrashedError, WorkerStartError
from flame_host.testing.processes import descendants, eventually

pytestmark = pytest.mark.timeout(60)


def double(n: int) -> int:
    return 2 * n


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def items(count: int) -> Iterator[int]:
    yield from range(count)


async def async_items(count: int) -> AsyncIterator[int]:
    for n in range(count):
        await asyncio.sleep(0)
        yield n


def stop() -> None:
    raise StopIteration(3)


def items_then_death(count: int) -> Iterator[int]:
    import os
    import signal

    yield from range(count)
    time.sleep(0.2)  # they are on their way by then
    os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------- asyncio


async def test_awaiting_a_task_that_raised_stop_iteration_ends(runner: Runner) -> None:
    with pytest.raises(RuntimeError, match="StopIteration"):
        await runner.service(stop)()


async def test_asyncio_wait_takes_futures_as_they_are(local: Runner) -> None:
    service = local.service(double)
    futures = [service(n) for n in range(5)]
    if sys.version_info < (3, 11):  # there `asyncio.wait` makes tasks of what it is given
        done, pending = await asyncio.wait([asyncio.wrap_future(future) for future in futures], timeout=30)
        assert (len(done), len(pending)) == (5, 0)
        return
    done, pending = await asyncio.wait(futures, timeout=30)  # type: ignore[type-var]
    assert not pending
    assert {future.get() for future in done} == {0, 2, 4, 6, 8}  # type: ignore[attr-defined]


async def test_a_callback_added_in_a_coroutine_is_called_by_its_loop(local: Runner) -> None:
    called: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    local.service(double)(4).add_done_callback(lambda done: called.set_result(done.get()))
    assert await asyncio.wait_for(called, 30) == 8


async def test_more_streams_at_once_than_there_are_threads_to_wait_in(local: Runner) -> None:
    service = local.service(async_items, max_instances=2)

    async def read(count: int) -> list[int]:
        return [item async for item in service(count)]

    assert await asyncio.wait_for(asyncio.gather(*(read(100) for _ in range(40))), 50) == [list(range(100))] * 40


# ---------------------------------------------------------------------------------------------------- streams


def test_a_generator_without_items_gives_none(runner: Runner) -> None:
    assert list(runner.service(items)(0)) == []


async def test_an_asynchronous_generator_without_items_gives_none(runner: Runner) -> None:
    assert [item async for item in runner.service(async_items)(0)] == []


def test_waiting_for_the_end_of_a_stream_lets_all_of_it_come(local: Runner) -> None:
    future = local.service(items)(500)
    assert future.wait(30)
    assert list(future) == list(range(500))


def test_a_stream_that_is_left_gives_its_worker_back(local: Runner) -> None:
    service = local.service(items, max_instances=1)
    for _ in range(3):
        for item in service(100_000):
            if item == 2:
                break
    assert list(service(3)) == [0, 1, 2]


def test_a_stream_whose_worker_is_lost_gives_no_item_twice(local: Runner) -> None:
    seen = []
    stream = iter(local.service(items_then_death)(5))
    with pytest.raises(WorkerCrashedError, match="some of its items have been delivered"):
        seen.extend(stream)
    assert seen == [0, 1, 2, 3, 4]


def test_many_consumers_of_streams_on_two_workers_all_come_to_an_end(local: Runner) -> None:
    service = local.service(items, max_instances=2)
    wrong: list[object] = []

    def consume(first: int) -> None:
        for count in range(first, 200, 7):
            got = list(service(count))
            if got != list(range(count)):
                wrong.append(got)

    threads = [threading.Thread(target=consume, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert not any(thread.is_alive() for thread in threads)
    assert not wrong


# ---------------------------------------------------------------------------------------------------- callbacks


def test_a_callback_may_wait_for_another_call_of_the_same_worker(local: Runner) -> None:
    service = local.service(double, max_instances=1)
    got: list[int] = []
    done = threading.Event()

    def follow(first: Any) -> None:
        got.append(service(first.get()).get())
        done.set()

    service(1).add_done_callback(follow)
    assert done.wait(30)
    assert got == [4]


def test_callbacks_have_been_called_when_the_service_is_closed(local: Runner) -> None:
    seen: list[int] = []
    with local.service(double) as service:
        for n in range(100):
            service(n).add_done_callback(lambda done: seen.append(done.get()))
    assert sorted(seen) == list(range(0, 200, 2))


# ---------------------------------------------------------------------------------------------------- workers that cannot start


class Unloadable:
    """Its class is found here, and says no where it is loaded."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return __import__, ("no_such_module_anywhere",)

    def work(self) -> None: ...


@pytest.mark.parametrize("pending", [1, 2, 8, 1000])
@pytest.mark.parametrize("workers", [1, 2])
def test_an_import_error_in_the_worker_fails_every_call_once(local: Runner, pending: int, workers: int) -> None:
    service = local.service(Unloadable(), stateful=False, max_instances=workers)
    failed = [future.exception(30) for future in [service.work() for _ in range(pending)]]
    assert all(isinstance(error, (ImportError, RemoteError)) for error in failed), failed[0]
    assert "no_such_module_anywhere" in str(failed[0])
    assert eventually(lambda: service.info().failed == pending)


@pytest.mark.parametrize("pending", [1, 2, 8, 1000])
def test_a_requirement_that_does_not_exist_is_looked_up_once_for_all_calls(project: Path, pending: int, tmp_path: Path) -> None:
    wheelhouse = tmp_path / "wheelhouse"
    wheelhouse.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FLAME_HOST_ROOT", str(tmp_path / "root"))
        patch.setenv("FLAME_HOST_WHEELHOUSE", str(wheelhouse))
        patch.setenv("FLAME_HOST_OFFLINE", "1")
        with Runner("typo", engine="local", dependencies=["nmpy-typo"]) as rr:
            service = rr.service(double, max_instances=2)
            failed = [future.exception(50) for future in [service(n) for n in range(pending)]]
            again = service(1).exception(50)
    assert all(isinstance(error, ProvisionError) for error in [*failed, again]), failed
    assert "nmpy-typo" in str(failed[0])
    assert len(list((tmp_path / "root" / "logs" / "install").iterdir())) == 1


def test_an_interpreter_that_does_not_exist_fails_every_call_once(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_HOST_OFFLINE", "1")
    with Runner("nowhere", engine="local", python_version="3.99", serializers=["msgpack"]) as rr:
        service = rr.service(double)
        failed = [future.exception(50) for future in [service(n) for n in range(8)]]
    assert all(isinstance(error, FlameError) and "3.99" in str(error) for error in failed), failed[0]


class DiesAtOnce:
    def __init__(self) -> None:
        import os

        os._exit(7)

    def work(self) -> None: ...


def test_a_worker_that_leaves_while_it_starts_fails_every_call_once(local: Runner) -> None:
    service = local.service(DiesAtOnce, stateful=False, max_instances=2)
    failed = [future.exception(30) for future in [service.work() for _ in range(20)]]
    assert all(isinstance(error, WorkerStartError) and "exited with code 7" in str(error) for error in failed), failed[0]


# ---------------------------------------------------------------------------------------------------- ends


@pytest.mark.parametrize("how", ["an exception in the block", "close(wait=False)"])
def test_leaving_while_a_worker_is_being_started_takes_no_time(how: str) -> None:
    began = time.monotonic()
    try:
        with Runner("leave", engine="local", package=False, logs="none") as rr:
            service = rr.service(nap)
            service(30)
            if how == "close(wait=False)":
                service.close(wait=False)
            else:
                raise LookupError
    except LookupError:
        pass
    assert time.monotonic() - began < 4
    from flamepy import disconnect

    disconnect()
    assert eventually(lambda: descendants() == [], 10)


def test_a_call_that_races_with_the_end_of_its_service_ends(local: Runner) -> None:
    for _ in range(5):
        service = local.service(double)
        service(1).get()
        made: list[Any] = []

        def calling(service: Any = service, made: list[Any] = made) -> None:
            try:
                while True:
                    made.append(service(1))
            except FlameError:
                pass

        thread = threading.Thread(target=calling)
        thread.start()
        time.sleep(0.01)
        service.close(wait=False)
        thread.join(30)
        assert not thread.is_alive()
        assert all(future.wait(30) for future in made)
