"""What the kinds of the chaos load share: the code that runs on the workers, the services, the books of who has got how far."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from flamepy import ObjectFuture, Runner, RunnerService


def nap(seconds: float, value: Any) -> Any:
    time.sleep(seconds)
    return value


def burn(seconds: float, value: Any) -> Any:
    """As a nap, but nothing else in its process gets a turn easily."""
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return value


def nap_for_ever() -> None:
    for _ in range(100_000):  # in small pieces: one that is asked to stop does
        time.sleep(0.01)


def chatter(size: int, value: Any) -> Any:
    for _ in range(4):
        print("x" * (size // 4))
    return value


def items(count: int, fails_at: int = -1) -> Iterator[int]:
    for number in range(count):
        if number == fails_at:
            raise ValueError(number)
        yield number


def fail(number: int) -> None:
    raise ValueError(number)


TASKS: dict[str, Callable[..., Any]] = {
    "double": lambda number: 2 * number,
    "odd fails": lambda number: fail(number) if number % 2 else number,
    "echo": lambda value: value,
    "length": len,
    "make": lambda kind, letter, size: kind(letter) * size,
    "total": sum,
    "pid": os.getpid,
} | {function.__name__: function for function in (nap, burn, nap_for_ever, chatter, items, fail)}


def work(what: str, *given: Any) -> Any:
    """One function for all: quick and slow, small and large, streams and failures meet in the same queues."""
    return TASKS[what](*given)


class Tally:
    """A service with a state: what it answers tells in which order the calls came."""

    def __init__(self) -> None:
        self.numbers: list[int] = []

    def add(self, number: int) -> int:
        self.numbers.append(number)
        return len(self.numbers)

    def all(self) -> list[int]:
        return self.numbers


# ---------------------------------------------------------------------------------------------------- on this side


class World:
    """One configuration of the load.

    Attributes:
        steps: by thread, how many results it has had. doing: what it is about. failed: one of them has, the others may stop.
        services: shared by all threads. has_workers: calls run in processes of their own.
    """

    def __init__(self, runner: Runner, threads: int) -> None:
        self.runner = runner
        self.threads = threads
        self.steps: dict[int, int] = {}
        self.doing: dict[int, str] = {}
        self.failed = False
        self.services = [runner.service(work, max_instances=most, retries=1000) for most in (0, 0, 1, 2)]
        self.tally = runner.service(Tally)
        self.has_workers = self.services[0]("pid").get() != os.getpid()

    @contextlib.contextmanager
    def watched(self, about: str) -> Iterator[None]:
        """From now on this thread is expected to get on."""
        me = threading.get_ident()
        self.steps[me], self.doing[me] = 0, about
        try:
            yield
        finally:
            del self.steps[me]

    def begin(self, what: str) -> None:
        self.doing[threading.get_ident()] = what

    def step(self) -> None:
        self.steps[threading.get_ident()] += 1

    def take(self, future: ObjectFuture[Any], timeout: float | None = None) -> Any:
        value = future.get(timeout)
        self.step()
        return value

    def counted(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.step()
            yield value

    @contextlib.contextmanager
    def own(self, served: Any = work, **options: Any) -> Iterator[RunnerService[..., Any]]:
        """A service that nobody else uses."""
        service = self.runner.service(served, **({"retries": 1000} | options))
        try:
            yield service
        finally:
            service.close(wait=False)

    @contextlib.contextmanager
    def some(self, chance: random.Random) -> Iterator[RunnerService[..., Any]]:
        """Nearly always a service that others use, too."""
        if chance.random() < 0.9:
            yield chance.choice(self.services)
        else:
            with self.own(max_instances=chance.choice([0, 1, 2]), warmup=chance.choice([0, 0, 1])) as service:
                yield service
                service.close()


class Wrong(AssertionError):
    pass


def expect(seen: Any, promised: Any) -> None:
    if seen != promised:
        raise Wrong(f"promised: {promised!r:.300}; seen: {seen!r:.300}")


def up_to(most: int, chance: random.Random) -> int:
    """Small numbers as often as large ones."""
    return int(most ** chance.random())


Kind = Callable[[World, random.Random], None]
KINDS: dict[str, tuple[int, bool, Kind]] = {}
"""By name: how often, whether it needs worker processes, what it does."""


def kind(weight: int, needs_workers: bool = False) -> Callable[[Kind], Kind]:
    def register(function: Kind) -> Kind:
        KINDS[function.__name__] = (weight, needs_workers, function)
        return function

    return register
