"""What is run under every schedule: small programs that use each part of the task path, and check every value."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from typing import Any

from simulation import SimThread
from world import Connection, Process, Service, threading

from flame_host.api import CallOptions, ClosedError, TaskTimeoutError, WorkerCrashedError, WorkerStartError

# ---------------------------------------------------------------------------------------------------- what the tasks do


def work(what: str, value: Any) -> Any:
    if what == "nap":
        time.sleep(value / 1000)
    elif what == "items":
        return _items(value)
    elif what == "large":
        return b"x" * value
    elif what == "fail":
        raise LookupError(value)
    return value


def _items(count: int) -> Iterator[int]:
    yield from range(count)


class Counter:
    count = 0

    def __call__(self, amount: int) -> int:
        self.count += amount
        return self.count


# ---------------------------------------------------------------------------------------------------- what a client does


def expect(seen: Any, wanted: Any) -> None:
    if seen != wanted:
        raise AssertionError(f"{seen!r} in place of {wanted!r}")


def calls(service: Service, chance: random.Random) -> None:
    for number in range(3):
        expect(service("give", number).get(), number)


def burst(service: Service, chance: random.Random) -> None:
    futures = [service("give", number) for number in range(chance.randrange(2, 12))]
    expect([future.get() for future in futures], list(range(len(futures))))


def naps(service: Service, chance: random.Random) -> None:
    """Long ones, short ones behind them: those are asked back."""
    futures = [service("nap", chance.choice([0, 1, 30, 60])) for _ in range(6)]
    for future in futures:
        future.get()


def large(service: Service, chance: random.Random) -> None:
    futures = [service("large", size) for size in (3000, 5000, 10)]
    big = service("give", b"y" * 4000)
    expect([len(future.get()) for future in futures], [3000, 5000, 10])
    expect(len(big.get()), 4000)


def streams(service: Service, chance: random.Random) -> None:
    for count in (0, chance.randrange(1, 5), 70):
        try:
            expect(list(service("items", count)), list(range(count)))
        except WorkerCrashedError as error:  # by `kills`, in another thread: then the rest is not given, and nothing twice
            expect("items have been delivered" in str(error), True)


def short_streams(service: Service, chance: random.Random) -> None:
    for count in (0, 1, 2):  # nobody kills in this scenario
        expect(list(service("items", count)), list(range(count)))


def end_of_stream(service: Service, chance: random.Random) -> None:
    """Nobody takes the items; who waits for the end gets it."""
    if not service("items", 80).wait():  # or failed, for the same reason
        raise AssertionError("did not end")


def cancels(service: Service, chance: random.Random) -> None:
    futures = [service("nap", 40) for _ in range(5)]
    for future in futures[2:]:
        future.cancel(force=chance.random() < 0.3)
    for future in futures[:2]:
        expect(future.get(), 40)
    for future in futures[2:]:
        if not future.wait():
            raise AssertionError("neither cancelled nor done")


def kills(service: Service, chance: random.Random) -> None:
    futures = [service("nap", 5) for _ in range(4)]
    service.kill_a_worker()
    for future in futures:
        expect(future.get(), 5)


def failures(service: Service, chance: random.Random) -> None:
    futures = [service(chance.choice(["give", "fail"]), 1) for _ in range(4)]
    for future in futures:
        error = future.exception()
        if error is not None and "LookupError" not in type(error).__name__:
            raise AssertionError(repr(error))


def chain(service: Service, chance: random.Random) -> None:
    """Waiting for another call in a callback."""
    seen = threading.Event()
    first = service("give", 1)
    first.add_done_callback(lambda done: (service("give", done.get() + 1).get(), seen.set()))
    if not seen.wait(2):
        raise AssertionError("the callback waits for ever")


def limits(service: Service, chance: random.Random) -> None:
    late = service.with_options(CallOptions(timeout=0.02), "nap", 200)
    first = service.with_options(CallOptions(priority=1), "give", 7)
    expect(first.get(), 7)
    if not isinstance(late.exception(), TaskTimeoutError):
        raise AssertionError(f"ended by {late.exception()!r}")


STEPS: tuple[Callable[[Service, random.Random], None], ...] = (
    calls, burst, naps, large, streams, end_of_stream, cancels, kills, failures, chain, limits,
)  # fmt: skip


# ---------------------------------------------------------------------------------------------------- scenarios


def mixed(chance: random.Random, steps: tuple[Callable[[Service, random.Random], None], ...] = STEPS) -> None:
    """One to three threads on one service, each doing one or two things; then it is closed, waiting or not."""
    connection = Connection(cores=2)
    service = connection.service(work, retries=1000)
    programs = [[chance.choice(steps) for _ in range(chance.randrange(1, 3))] for _ in range(chance.randrange(1, 4))]
    errors: list[BaseException] = []

    def live(program: list[Callable[[Service, random.Random], None]], own: random.Random) -> None:
        try:
            for step in program:
                step(service, own)
        except Exception as error:
            error.add_note(f"in {step.__name__}") if hasattr(error, "add_note") else None
            errors.append(error)

    threads = [SimThread(live, f"client-{n}", args=(program, random.Random(chance.random()))) for n, program in enumerate(programs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if errors:
        raise errors[0]
    last = [service("nap", 3) for _ in range(chance.randrange(4))]
    wait = chance.random() < 0.7
    service.session.close(wait=wait)
    for future in last:
        if not future.wait():
            raise AssertionError("left behind by close")
        if wait:
            expect(future.get(), 3)
    connection.close()


def quiet(chance: random.Random) -> None:
    """Calls with pauses as long as a session is looked after: it goes to rest and wakes up."""
    connection = Connection(cores=1)
    service = connection.service(work)
    for number in range(3):
        futures = [service("give", number), service("give", number + 1)]
        expect([future.get() for future in futures], [number, number + 1])
        time.sleep(chance.choice([0.98, 0.995, 1.0, 1.005, 1.01, 1.02]))
    limits(service, chance)
    service.session.close()
    connection.close()


def closing(chance: random.Random) -> None:
    """Calls are made while the session is being closed: each ends, or is refused."""
    connection = Connection(cores=1)
    service = connection.service(work)
    made: list[Any] = []

    def calling() -> None:
        try:
            for number in range(20):
                made.append(service("give", number))
        except ClosedError:
            pass

    thread = SimThread(calling, "client")
    thread.start()
    service.session.close(wait=chance.random() < 0.5)
    thread.join()
    for future in made:
        if not future.wait():
            raise AssertionError("left behind by close")
    connection.close()


def stateful(chance: random.Random) -> None:
    connection = Connection(cores=2)
    service = connection.service(Counter(), stateful=True)
    futures = [service(1) for _ in range(5)]
    expect([future.get() for future in futures], [1, 2, 3, 4, 5])
    service.session.close(wait=chance.random() < 0.5)
    connection.close()


def no_start(chance: random.Random) -> None:
    """No worker can be had, or none gets ready: every call fails once, and nothing is started for ever."""

    def leave(process: Process) -> None:
        raise SystemExit(3)

    how = chance.choice(["provisioning", "start", "readiness"])
    connection = Connection(cores=chance.choice([1, 2, 8]), **({"start": leave} if how == "start" else {}))
    if how == "provisioning":
        connection.launcher.failure = WorkerStartError("no such package")
    connection.launcher.reaper.leaves_when_ready = how == "readiness"
    service = connection.service(work)
    pending = [service("give", number) for number in range(chance.choice([1, 2, 8]))]
    for future in pending:
        error = future.exception()
        if not isinstance(error, WorkerStartError):
            raise AssertionError(f"{error!r}")
    attempts = connection.launcher.provisionings + connection.launcher.reaper.spawned
    if attempts > max(8, len(pending)):
        raise AssertionError(f"{attempts} starts for {len(pending)} calls")
    service.session.close()
    connection.close()


def small(chance: random.Random) -> None:
    """For schedules one after another: two calls at once on one worker, then a lone one."""
    connection = Connection(cores=1)
    service = connection.service(work)
    futures = [service("give", 1), service("give", 2)]
    expect([future.get() for future in futures], [1, 2])
    expect(service("give", 3).get(), 3)
    service.session.close()
    connection.close()


SCENARIOS: dict[str, Callable[[random.Random], None]] = {
    "mixed": mixed,
    "streaming": lambda chance: mixed(chance, (short_streams,)),
    "sending": lambda chance: mixed(chance, (large,)),
    "turns": lambda chance: mixed(chance, (calls, burst)),
    "quiet": quiet,
    "closing": closing,
    "stateful": stateful,
    "no_start": no_start,
    "small": small,
}
LIMITS = {
    "mixed": 4.5,
    "streaming": 4.0,
    "sending": 4.0,
    "turns": 4.0,
    "quiet": 8.0,
    "closing": 4.0,
    "stateful": 4.0,
    "no_start": 4.0,
    "small": 3.0,
}
"""Seconds of the machine's clock: fewer than the stall watch waits, so that nothing is rescued unseen."""
