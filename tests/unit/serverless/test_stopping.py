"""Jobs that are taken back: they end, whatever they are at, and what comes after them is not disturbed."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from flame_host.handler import Stopped, create_concurrent_handler, create_handler, create_stream_handler, stoppable

Handler = Callable[[Any], Any]


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


class Works:
    """Functions that go on until they are stopped, and tell how they ended."""

    def __init__(self) -> None:
        self.begun = 0
        self.ended: list[str] = []

    def goes_on(self, n: int) -> int:
        self.begun += 1
        try:
            while n:
                try:
                    time.sleep(0.001)
                except Exception:
                    self.ended.append("caught")
        except BaseException as error:
            self.ended.append(type(error).__name__)
            raise
        return threading.get_ident()

    async def waits(self, n: int) -> int:
        self.begun += 1
        try:
            await asyncio.sleep(600 * n)
        except BaseException as error:
            self.ended.append(type(error).__name__)
            await asyncio.sleep(0.05)  # what it does to clean up is waited for
            self.ended.append("cleaned")
            raise
        return n

    def yields(self, n: int) -> Iterator[int]:
        try:
            yield from range(n)
        finally:
            self.ended.append("closed")

    async def streams(self, n: int) -> AsyncIterator[int]:
        try:
            for number in range(n):
                yield number
        finally:
            await asyncio.sleep(0)
            self.ended.append("closed")


async def taken_back(handler: Handler, works: Works, n: int = 1) -> None:
    """Give a job, and take it back when it has begun."""
    begun = works.begun
    job = asyncio.ensure_future(handler({"input": {"n": n}}))
    await until(lambda: works.begun > begun)
    job.cancel()
    with pytest.raises(asyncio.CancelledError):
        await job


def test_a_function_is_stopped_though_it_catches_every_exception() -> None:
    works = Works()
    handler = stoppable(create_handler({"goes_on": works.goes_on}))

    async def jobs() -> Any:
        await taken_back(handler, works)
        return await handler({"input": {"n": 0}}), await handler({"input": {"n": 0}})

    first, second = asyncio.run(jobs())
    assert works.ended == ["Stopped"]
    assert first == second  # always the same thread: some libraries keep things by thread
    assert not issubclass(Stopped, Exception)


def test_a_coroutine_is_cancelled_and_its_cleaning_up_waited_for() -> None:
    works = Works()
    handler = create_concurrent_handler({"waits": works.waits}, 2)

    async def jobs() -> Any:
        await taken_back(handler, works)
        assert works.ended == ["CancelledError", "cleaned"]
        return await handler({"input": {"n": 0}})

    assert asyncio.run(jobs()) == 0


def test_taking_a_job_back_twice_waits_for_its_end_all_the_same() -> None:
    works = Works()
    handler = stoppable(create_handler({"waits": works.waits}))

    async def jobs() -> None:
        job = asyncio.ensure_future(handler({"input": {"n": 1}}))
        await until(lambda: works.begun)
        job.cancel()
        await until(lambda: works.ended)
        job.cancel()
        with pytest.raises(asyncio.CancelledError):
            await job
        assert works.ended == ["CancelledError", "cleaned"]

    asyncio.run(jobs())


def test_a_job_that_waits_for_its_turn_never_begins() -> None:
    works = Works()
    handler = stoppable(create_handler({"goes_on": works.goes_on}))

    async def jobs() -> None:
        first = asyncio.ensure_future(handler({"input": {"n": 1}}))
        await until(lambda: works.begun)
        second = asyncio.ensure_future(handler({"input": {"n": 1}}))
        await asyncio.sleep(0)
        for job in (second, first):
            job.cancel()
            with pytest.raises(asyncio.CancelledError):
                await job

    asyncio.run(jobs())
    assert (works.begun, works.ended) == (1, ["Stopped"])


def test_a_job_after_one_that_was_stopped_is_never_hit_by_what_was_meant_for_that() -> None:
    works = Works()
    handler = stoppable(create_handler({"short": lambda n: n, "goes_on": works.goes_on}))

    async def jobs() -> None:
        for number in range(300):
            job = asyncio.ensure_future(handler({"input": {"function_name": "short", "n": number}}))
            for _ in range(number % 7):
                await asyncio.sleep(0)
            job.cancel()  # before, in and after the call
            following = await handler({"input": {"function_name": "short", "n": number}})
            assert following == number
            await asyncio.gather(job, return_exceptions=True)

    asyncio.run(jobs())


@pytest.mark.parametrize("name", ["yields", "streams"])
def test_a_stream_that_is_left_half_way_is_closed(name: str) -> None:
    works = Works()
    handler = create_stream_handler({name: getattr(works, name)})

    async def jobs() -> list[int]:
        answers = handler({"input": {"n": 10}})
        first = [await anext(answers), await anext(answers)]
        await answers.aclose()  # type: ignore[attr-defined]
        return first

    assert asyncio.run(jobs()) == [0, 1]
    assert works.ended == ["closed"]


@pytest.mark.parametrize("name", ["yields", "streams"])
def test_a_stream_is_closed_when_its_job_is_taken_back_while_an_item_is_sent(name: str) -> None:
    works = Works()
    handler = create_stream_handler({name: getattr(works, name)})
    held = []  # as a traceback may hold it, for longer than anybody waits

    async def send(answers: AsyncIterator[int], sending: asyncio.Event) -> None:
        async for _ in answers:
            sending.set()
            await asyncio.sleep(600)

    async def jobs() -> None:
        held.append(handler({"input": {"n": 10}}))
        sending = asyncio.Event()
        job = asyncio.ensure_future(send(held[0], sending))
        await sending.wait()
        job.cancel()
        await until(lambda: works.ended)
        assert job.cancelled()

    asyncio.run(jobs())
    assert works.ended == ["closed"]


@pytest.mark.parametrize("name", ["yields", "streams"])
def test_each_item_of_a_stream_may_be_asked_for_by_another_task(name: str) -> None:
    handler = create_stream_handler({name: getattr(Works(), name)})

    async def jobs() -> list[int]:
        answers = handler({"input": {"n": 3}})
        found = []
        for _ in range(3):
            found.append(await asyncio.ensure_future(anext(answers)))
            await asyncio.sleep(0.02)
        return found

    assert asyncio.run(jobs()) == [0, 1, 2]


def test_a_cancelled_error_of_the_function_s_own_is_a_failure() -> None:
    async def gives_up(n: int) -> None:
        raise asyncio.CancelledError

    handler = stoppable(create_handler({"gives_up": gives_up}))

    async def job() -> Any:
        return await handler({"input": {"n": 1}})

    assert asyncio.run(job())["error_type"] == "asyncio.exceptions.CancelledError"
