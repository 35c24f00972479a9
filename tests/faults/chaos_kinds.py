"""What a thread of the chaos load may do. Each kind makes calls in its own way, and checks every value and every order promised."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import random
import time
from typing import Any

from chaos_world import World, expect, kind, up_to
from flamepy import RunnerService

# ---------------------------------------------------------------------------------------------------- maps and plain calls


@kind(5)
def map_in_order(world: World, chance: random.Random) -> None:
    count = up_to(20_000, chance)
    with world.some(chance) as service:
        values = service.map(itertools.repeat("double"), range(count), in_flight=chance.choice([None, None, 1, 30, 500]))
        expect(list(world.counted(values)), list(range(0, 2 * count, 2)))


@kind(3)
def map_in_any_order(world: World, chance: random.Random) -> None:
    count = up_to(20_000, chance)
    with world.some(chance) as service:
        values = service.map(itertools.repeat("double"), range(count), ordered=False, in_flight=chance.choice([None, None, 30, 500]))
        expect(sorted(world.counted(values)), list(range(0, 2 * count, 2)))


@kind(2)
def map_left_early(world: World, chance: random.Random) -> None:
    count = up_to(20_000, chance)
    with world.some(chance) as service:
        values = service.map(itertools.repeat("double"), range(count), ordered=chance.random() < 0.5)
        for value in itertools.islice(world.counted(values), chance.randrange(count)):
            expect(value % 2, 0)
        del values


@kind(2)
def map_with_failures(world: World, chance: random.Random) -> None:
    count = up_to(2_000, chance)
    with world.some(chance) as service:
        values = list(world.counted(service.map(itertools.repeat("odd fails"), range(count), return_exceptions=True)))
        expect([value.args[0] if isinstance(value, ValueError) else value for value in values], list(range(count)))


@kind(6)
def single_calls(world: World, chance: random.Random) -> None:
    timeout = chance.choice([None, None, 60])
    with world.some(chance) as service:
        for number in range(up_to(1_000, chance)):
            future = service("double", number)
            if chance.random() < 0.05:
                future.wait(chance.choice([0, 0.0001, 0.001]))
            expect(world.take(future, timeout), 2 * number)


@kind(8)
def few_then_many(world: World, chance: random.Random) -> None:
    """Single calls, then many, or some that take about as long as an engine waits before it gives those behind to another worker."""
    with world.some(chance) as service:
        for _ in range(up_to(30, chance)):
            for number in range(chance.choice([1, 20, 40])):
                expect(world.take(service("double", number)), 2 * number)
            if chance.random() < 0.5:
                count = up_to(10_000, chance)
                expect(sum(world.counted(service.map(itertools.repeat("echo"), range(count)))), count * (count - 1) // 2)
                continue
            futures = [service(chance.choice(["burn", "nap"]), chance.uniform(0, 0.03), 0)]
            futures += [service("echo", number) for number in range(1, chance.randint(2, 6))]
            order = chance.choice([list, reversed])
            expect([world.take(future) for future in order(futures)], list(order(range(len(futures)))))


@kind(4)
def bursts(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        for _ in range(chance.randint(1, 10)):
            futures = [(number, service("double", number)) for number in range(up_to(2_000, chance))]
            chance.shuffle(futures)
            for number, future in futures:
                expect(world.take(future), 2 * number)
            if chance.random() < 0.3:
                time.sleep(chance.choice([0.001, 0.03, 1.2]))  # also for so long that everything comes to rest


@kind(3)
def naps(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        futures = [
            (n, service(chance.choice(["burn", "nap"]), chance.uniform(0.001, 0.03), n) if chance.random() < 0.3 else service("echo", n))
            for n in range(100)
        ]
        chance.shuffle(futures)
        for number, future in futures:
            expect(world.take(future), number)


@kind(3)
def large_values(world: World, chance: random.Random) -> None:
    """Both ways at once, more than the sockets hold, some behind a slow call; within the pickle (bytes) and beside it (bytearray)."""
    size = chance.choice([20 << 10, 64 << 10, 256 << 10, 1 << 20, 4 << 20, 24 << 20])
    type_ = chance.choice([bytes, bytearray])
    with world.some(chance) as service:
        calls = []
        for letter in range(max(1, min(200, (48 << 20) // size // world.threads))):
            value = type_([letter]) * size
            way = chance.choice(["echo", "length", "make"])
            given = ("make", type_, [letter], size) if way == "make" else (way, value)
            calls.append((size if way == "length" else value, service(*given)))
            if chance.random() < 0.1:
                calls.append((letter, service(chance.choice(["burn", "nap"]), 0.03, letter)))
        chance.shuffle(calls)
        for promised, future in calls:
            expect(world.take(future), promised)


@kind(1, needs_workers=True)
def large_output(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        futures = [service("chatter", up_to(1 << 20, chance), number) for number in range(20)]
        expect([world.take(future) for future in futures], list(range(20)))


@kind(2)
def failures(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        futures = [service("fail", number) for number in range(up_to(200, chance))]
        for number, future in enumerate(futures):
            error = future.exception()
            world.step()
            expect((type(error), getattr(error, "args", None)), (ValueError, (number,)))


@kind(2)
def chains(world: World, chance: random.Random) -> None:
    """Futures as arguments, from service to service, alone and many in a list; a failure goes through."""
    for _ in range(chance.randint(1, 20)):
        depth = chance.randint(1, 20)
        future = chance.choice(world.services)("echo", 1)
        for _ in range(depth):
            future = chance.choice(world.services)("double", future)
        expect(world.take(future), 2**depth)
    with world.some(chance) as service:
        parts = [service("double", number) for number in range(up_to(300, chance))]
        expect(world.take(service("total", parts)), len(parts) * (len(parts) - 1))
        expect(type(service("double", service("double", service("fail", 1))).exception()), ValueError)
        world.step()


@kind(3)
def waits(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        futures = {service("nap", 0.005, n) if chance.random() < 0.1 else service("echo", n): n for n in range(up_to(1_000, chance))}
        if chance.random() < 0.5:
            done = list(world.counted(concurrent.futures.as_completed(futures)))
        else:
            done, left = [], set(futures)
            while left:
                when = chance.choice([concurrent.futures.FIRST_COMPLETED, concurrent.futures.ALL_COMPLETED])
                newly, left = concurrent.futures.wait(left, return_when=when)
                expect(bool(newly), True)
                done += newly
                world.step()
        expect(len(done), len(futures))
        expect({future: future.get() for future in done}, futures)


@kind(3)
def awaits(world: World, chance: random.Random) -> None:
    async def run(service: RunnerService[..., Any]) -> None:
        for number in range(up_to(100, chance)):
            expect(await service("double", number), 2 * number)
            world.step()
        count = up_to(1_000, chance)
        expect(await asyncio.gather(*(service("double", number) for number in range(count))), list(range(0, 2 * count, 2)))
        expect(await asyncio.wait_for(service("nap", 0.005, 7), 60), 7)

    with world.some(chance) as service:
        asyncio.run(run(service))
        world.step()


# ---------------------------------------------------------------------------------------------------- streams


@kind(6)
def streams(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        for _ in range(up_to(50, chance)):
            count = chance.randint(1, 300)
            expect(list(world.counted(service("items", count))), list(range(count)))


@kind(2)
def slow_streams(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        for number, value in enumerate(world.counted(service("items", chance.randint(1, 300)))):
            expect(value, number)
            if chance.random() < 0.1:
                time.sleep(chance.choice([0.001, 0.03]))


@kind(1)
def empty_streams(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        expect(list(service("items", 0)), [])
        world.step()


@kind(2)
def streams_left_early(world: World, chance: random.Random) -> None:
    """With a word to the worker; without one, the stream keeps its worker to the end of the service."""

    def leave(service: RunnerService[..., Any]) -> Any:
        future, taken = service("items", 300), chance.randrange(300)
        expect(list(itertools.islice(world.counted(future), taken)), list(range(taken)))
        return future

    with world.some(chance) as service:
        for _ in range(3):
            leave(service).cancel()
    with world.own(max_instances=2) as service:
        leave(service)
        expect(world.take(service("double", 1)), 2)
        service.close(wait=chance.random() < 0.5)


@kind(1)
def streams_that_fail(world: World, chance: random.Random) -> None:
    with world.some(chance) as service:
        count, seen = chance.randrange(1, 300), []
        try:
            for value in world.counted(service("items", 300, count)):
                seen.append(value)
        except ValueError:
            seen.append("failed")
        expect(seen, [*range(count), "failed"])


@kind(2)
def streams_awaited(world: World, chance: random.Random) -> None:
    async def run(service: RunnerService[..., Any], count: int) -> list[int]:
        seen = []
        async for value in service("items", count):
            world.step()
            seen.append(value)
        return seen

    with world.some(chance) as service:
        count = chance.randint(1, 300)
        expect(asyncio.run(run(service, count)), list(range(count)))
