"""What a thread of the chaos load may do, continued: states, and everything that ends before its time."""

from __future__ import annotations

import concurrent.futures
import contextlib
import os
import random
import signal
import time
from concurrent.futures import CancelledError
from typing import Any

from chaos_world import Tally, World, expect, kind, up_to
from flamepy import ClosedError, FlameError, ObjectFuture, TaskTimeoutError


class CannotBeImported:
    """Code that its worker cannot load."""

    def __reduce__(self) -> Any:
        return __import__, ("a_module_that_nobody_has",)

    def __call__(self) -> None: ...


@kind(3)
def states(world: World, chance: random.Random) -> None:
    """Calls of a stateful service come in the order they were made, also behind one that waits for its argument."""
    with world.own(Tally, retries=3) as service:
        count = up_to(300, chance)
        futures = []
        for number in range(count):
            future = service.add(world.services[0]("nap", 0.002, number) if chance.random() < 0.1 else number)
            futures.append(future)
            if chance.random() < 0.3:
                expect(world.take(future), number + 1)
        expect([world.take(future) for future in futures], list(range(1, count + 1)))
        expect(world.take(service.all()), list(range(count)))


@kind(2)
def shared_state(world: World, chance: random.Random) -> None:
    seen = [world.take(future) for future in [world.tally.add(0) for _ in range(up_to(300, chance))]]
    expect(seen, sorted(set(seen)))


# ---------------------------------------------------------------------------------------------------- ends


def settled(world: World, future: ObjectFuture[Any], value: Any, *errors: type[BaseException]) -> None:
    """It is done, or gets done, with its value or with one of these errors."""
    try:
        expect(world.take(future, 60), value)
    except errors:
        world.step()


@kind(3, needs_workers=True)
def cancels(world: World, chance: random.Random) -> None:
    """Of calls that are queued, under way, and running; of a running one by force."""
    with world.own(max_instances=chance.choice([1, 2])) as own:
        force = chance.random() < 0.5
        service = own if force else chance.choice(world.services)
        futures = [service("nap", 0.002, number) for number in range(60)]
        for future in chance.sample(futures, 20):
            future.cancel(force=force)
        hanging = service("nap_for_ever")
        if chance.random() < 0.7:
            while not hanging.running():
                time.sleep(0.002)
        while not hanging.cancel(force=force):  # on its way from one worker to another it cannot be
            time.sleep(0.002)
        expect(type(_outcome(hanging)), CancelledError)
        world.step()
        for number, future in enumerate(futures):
            settled(world, future, number, CancelledError)


def _outcome(future: concurrent.futures.Future[Any]) -> Any:
    try:
        return future.exception() or future.result()
    except CancelledError as error:
        return error


@kind(1, needs_workers=True)
def options(world: World, chance: random.Random) -> None:
    with world.own() as service:
        futures = [service.options(timeout=60, priority=chance.randint(0, 5), name=f"n{n}")("echo", n) for n in range(50)]
        late = service.options(timeout=0.2, retries=0)("nap_for_ever")
        expect([world.take(future) for future in futures], list(range(50)))
        expect(type(_outcome(late)), TaskTimeoutError)
        world.step()


@kind(3, needs_workers=True)
def closing_with_work(world: World, chance: random.Random) -> None:
    """Also while its workers are just being started, and while another thread waits."""
    wait = chance.random() < 0.5
    with world.own(warmup=chance.choice([0, 2])) as service:
        if chance.random() < 0.5:
            expect(world.take(service("double", 1)), 2)
        futures = [service("nap", chance.choice([0, 0.01]), number) for number in range(up_to(100, chance))]
        with concurrent.futures.ThreadPoolExecutor(1) as waiter:
            waiting = waiter.submit(futures[-1].exception) if chance.random() < 0.5 else None
            service.close(wait=wait)
            world.step()
            for number, future in enumerate(futures):
                settled(world, future, number, *(() if wait else (ClosedError, CancelledError)))
            if waiting is not None:
                _outcome(waiting)


@kind(2, needs_workers=True)
def kills(world: World, chance: random.Random) -> None:
    """Workers killed from outside, wherever they are: idle, starting on a task, within one, far behind with many."""
    with world.own(max_instances=2) as service:
        for _ in range(3):
            for number in range(chance.choice([0, 30])):
                expect(world.take(service("double", number)), 2 * number)
            victims = [world.take(service("pid")) for _ in range(2)]
            futures = [service("nap", 0.001, number) for number in range(100)]
            futures += [service("echo", number) for number in range(100, up_to(3_000, chance))]
            for victim in victims:
                time.sleep(chance.choice([0, 0.01]))
                with contextlib.suppress(ProcessLookupError):
                    os.kill(victim, signal.SIGKILL)
            expect([world.take(future) for future in futures], list(range(len(futures))))


@kind(1, needs_workers=True)
def code_that_cannot_be_loaded(world: World, chance: random.Random) -> None:
    """Every call fails, once, and in time."""
    ends: list[Any] = []
    with world.own(CannotBeImported(), autoscale=True, max_instances=chance.choice([0, 8])) as service:
        futures = []
        for _ in range(chance.choice([1, 2, 8, 100])):
            try:
                futures.append(service())
            except FlameError:  # it is known by now
                world.step()
            else:
                futures[-1].add_done_callback(ends.append)
        for future in futures:
            error = future.exception(timeout=20)
            world.step()
            expect(isinstance(error, (ImportError, FlameError)), True)
        while len(ends) < len(futures):  # callbacks may come a little later
            time.sleep(0.002)
    expect(len(ends), len(futures))


@kind(1)
def many_services(world: World, chance: random.Random) -> None:
    count = chance.randint(4, max(4, 24 // world.threads))
    with contextlib.ExitStack() as stack:
        services = [stack.enter_context(world.own(max_instances=1)) for _ in range(count)]
        for _ in range(3):
            futures = [service("double", number) for number, service in enumerate(services)]
            expect([world.take(future) for future in futures], list(range(0, 2 * count, 2)))
