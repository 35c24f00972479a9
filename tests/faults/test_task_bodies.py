"""Every way a task can misbehave: what its caller sees, and that nobody else notices."""

from __future__ import annotations

import asyncio
import ctypes
import itertools
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import CancelledError
from dataclasses import dataclass, field
from typing import Any

import pytest
from flamepy import Runner

from flame_host.api import (
    NotSerializableError,
    SerializationError,
    TaskExitError,
    TaskTimeoutError,
    WorkerCrashedError,
)


@dataclass(frozen=True)
class Fault:
    """One row.

    Attributes:
        body: what the task does. error: the exact type its caller gets, None when it gets a value; text: what the message must say.
        value: the value it gets. facts: attributes of the error. options: of the service.
    """

    name: str
    body: Callable[[], Any]
    error: type[BaseException] | None = None
    text: str = ""
    value: Any = None
    facts: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def promised(self) -> str:
        if self.error is None:
            return f"the value {str(self.value)[:20]!r}" if not callable(self.value) else "the value"
        return " ".join([self.error.__name__, *(f"{key}={value}" for key, value in self.facts.items())])


# ---------------------------------------------------------------------------------------------------- bodies


def exhaust_stack() -> None:
    import faulthandler

    faulthandler._stack_overflow()  # type: ignore[attr-defined]


def recurse(n: int = 0) -> int:
    return recurse(n + 1) + 1


def spin() -> None:
    while True:
        pass


def spin_and_swallow() -> None:
    while True:
        try:
            while True:
                pass
        except BaseException:
            continue


def hold_the_interpreter() -> None:
    sum(itertools.repeat(0))


def take_memory() -> int:
    return len(bytearray(4 << 30))


def take_memory_bit_by_bit() -> None:
    taken = []
    while True:
        taken.append(bytearray(8 << 20))


def open_many_files() -> None:
    kept = []
    while True:
        kept.append(open(os.devnull))  # noqa: SIM115


def write_a_large_file() -> None:
    with tempfile.TemporaryFile() as file:
        while True:
            file.write(bytes(1 << 20))
            file.flush()


def fork_and_return() -> str:
    return "parent" if os.fork() else "child"


def fork_and_raise() -> str:
    if not os.fork():
        raise ValueError("in the child")
    return "parent"


def fork_and_linger() -> str:
    if not os.fork():
        os.setsid()
        time.sleep(300)
    return "parent"


def fork_and_crash() -> str:
    if not os.fork():
        ctypes.string_at(0)
    os.wait()
    return "parent"


def leave_threads() -> str:
    def forever() -> None:
        while True:
            time.sleep(0.01)

    def fail() -> None:
        raise RuntimeError("in a thread")

    for target in (forever, forever, fail):
        threading.Thread(target=target).start()
    return "left"


def close_all_descriptors() -> str:
    os.closerange(0, 4096)
    return "closed"


def close_standard_descriptors() -> str:
    os.closerange(0, 3)
    print("into the void")
    return "closed"


def flood_stdout() -> str:
    for _ in range(100_000):
        print("x" * 80)
    return "flooded"


def flood_without_newline() -> str:
    for _ in range(2000):
        sys.stdout.write("x" * 4096)
    return "flooded"


def flood_descriptors() -> str:
    for _ in range(2000):
        os.write(1, b"y" * 4096)
        os.write(2, b"z" * 4096)
    return "flooded"


def write_frames_to_every_descriptor() -> str:
    """What a confused library does: bytes that look like answers, to the descriptors that are its own."""
    for fd in (1, 2):
        os.write(fd, bytes(range(256)) * 16)
    return "written"


def return_much() -> bytes:
    return bytes(128 << 20)


def return_much_in_pieces() -> list[bytes]:
    return [bytearray(1100 << 10) for _ in range(260)]


class Exploding:
    """A value that is harmless until it is unpickled."""

    def __init__(self, *what: Any) -> None:
        self.what = what

    def __reduce__(self) -> Any:
        return self.what


class RaisingWhilePickled:
    def __reduce__(self) -> Any:
        raise RuntimeError("not today")


class ExitingWhilePickled:
    def __reduce__(self) -> Any:
        sys.exit(9)


class KeepsALock(Exception):
    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.lock = threading.Lock()


class SaysNothing(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class ExplodesOnArrival(Exception):
    def __init__(self, how: Any) -> None:
        super().__init__("boom")
        self.how = how

    def __reduce__(self) -> Any:
        return self.how


def raise_error(error: BaseException) -> None:
    raise error


def raise_unpicklable() -> None:
    raise KeepsALock("it keeps a lock")


def raise_chain() -> None:
    try:
        raise KeyError("first")
    except KeyError as error:
        raise ValueError("second") from error


def change_signal_handlers() -> str:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGUSR1, signal.SIGALRM):
        signal.signal(number, lambda *_: os._exit(66))
    return "changed"


def set_an_alarm() -> str:
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    return "armed"


def block_signals() -> str:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGALRM})
    return "blocked"


def change_surroundings() -> str:
    os.environ["LEFT_BEHIND"] = "yes"
    os.environ.pop("PATH", None)
    os.chdir("/")
    return "changed"


def clear_environment() -> str:
    os.environ.clear()
    return "cleared"


def remove_own_directory() -> str:
    directory = tempfile.mkdtemp()
    os.chdir(directory)
    shutil.rmtree(directory)
    return "removed"


def replace_standard_streams() -> str:
    sys.stdout.close()
    sys.stderr = None  # type: ignore[assignment]
    sys.stdin.close()
    return "replaced"


def generate_and_raise() -> Any:
    yield from range(3)
    raise ValueError("after three")


def generate_and_crash() -> Any:
    yield 1
    os._exit(4)


def generate_unpicklable() -> Any:
    yield 1
    yield threading.Lock()


async def raise_later() -> None:
    await asyncio.sleep(0.01)
    raise ValueError("later")


async def leave_coroutines() -> str:
    async def forever() -> None:
        while True:
            await asyncio.sleep(0.001)

    async def fail() -> None:
        raise RuntimeError("nobody awaits me")

    leave_coroutines.kept = [asyncio.ensure_future(forever()), asyncio.ensure_future(fail())]  # type: ignore[attr-defined]
    return "left"


MEMORY_LIMIT = {"limits": {"memory": 512 << 20}}
LIMIT = {"timeout": 0.3}

FAULTS = [
    Fault("segmentation fault", lambda: ctypes.string_at(0), WorkerCrashedError, "SIGSEGV", facts={"signal": signal.SIGSEGV}),
    Fault("abort", os.abort, WorkerCrashedError, "SIGABRT", facts={"signal": signal.SIGABRT}),
    Fault("stack of C exhausted", exhaust_stack, WorkerCrashedError, "SIGSEGV", facts={"signal": signal.SIGSEGV}),
    Fault("os._exit(3)", lambda: os._exit(3), WorkerCrashedError, "code 3", facts={"exit_code": 3}),
    Fault("os._exit(0)", lambda: os._exit(0), WorkerCrashedError, "code 0", facts={"exit_code": 0}),
    Fault("sys.exit(5)", lambda: sys.exit(5), TaskExitError, "5", facts={"code": "5"}),
    Fault("sys.exit('text')", lambda: sys.exit("enough"), TaskExitError, "enough", facts={"code": "enough"}),
    Fault("SIGKILL to itself, every time", lambda: os.kill(os.getpid(), signal.SIGKILL), WorkerCrashedError, "tried 4 times"),
    Fault("SIGSTOP to itself, time limit", lambda: os.kill(os.getpid(), signal.SIGSTOP), TaskTimeoutError, "0.3 s", options=LIMIT),
    Fault("KeyboardInterrupt", lambda: raise_error(KeyboardInterrupt("by hand")), KeyboardInterrupt, "by hand"),
    Fault("GeneratorExit", lambda: raise_error(GeneratorExit("odd")), GeneratorExit, "odd"),
    Fault("StopIteration", lambda: next(iter(())), StopIteration),
    Fault("infinite loop, time limit", spin, TaskTimeoutError, "0.3 s", options=LIMIT),
    Fault("infinite loop that swallows everything, time limit", spin_and_swallow, TaskTimeoutError, "0.3 s", options=LIMIT),
    Fault("blocked in the kernel, time limit", lambda: time.sleep(300), TaskTimeoutError, "0.3 s", options=LIMIT),
    Fault("GIL held in a C loop, time limit", hold_the_interpreter, TaskTimeoutError, "0.3 s", options=LIMIT),
    Fault("deep recursion", recurse, RecursionError, "maximum recursion"),
    Fault("memory over the limit, at once", take_memory, MemoryError, options=MEMORY_LIMIT),
    Fault("memory over the limit, bit by bit", take_memory_bit_by_bit, MemoryError, options=MEMORY_LIMIT),
    Fault("CPU over the limit", spin, WorkerCrashedError, "SIGXCPU", facts={"signal": signal.SIGXCPU}, options={"limits": {"cpu": 1}}),
    Fault("open files over the limit", open_many_files, OSError, "Too many open files", options={"limits": {"open_files": 64}}),
    Fault("file size over the limit", write_a_large_file, OSError, "File too large", options={"limits": {"file_size": 8 << 20}}),
    Fault("fork, and both return", fork_and_return, value="parent"),
    Fault("fork, and the child raises", fork_and_raise, value="parent"),
    Fault("fork, and the child stays in a session of its own", fork_and_linger, value="parent"),
    Fault("fork, and the child crashes", fork_and_crash, value="parent"),
    Fault("threads left behind", leave_threads, value="left"),
    Fault("all descriptors closed", close_all_descriptors, WorkerCrashedError, "descriptors closed by a task"),
    Fault("descriptors 0, 1, 2 closed", close_standard_descriptors, value="closed"),
    Fault("8 MB of lines to stdout", flood_stdout, value="flooded"),
    Fault("8 MB to stdout without a newline", flood_without_newline, value="flooded"),
    Fault("16 MB to descriptors 1 and 2", flood_descriptors, value="flooded"),
    Fault("binary rubbish to descriptors 1 and 2", write_frames_to_every_descriptor, value="written"),
    Fault("128 MB result", return_much, value=lambda value: len(value) == 128 << 20),
    Fault(
        "result with 260 buffers in shared memory",
        return_much_in_pieces,
        value=lambda value: [len(part) for part in value] == [1100 << 10] * 260,
    ),
    Fault("result that cannot be pickled", threading.Lock, NotSerializableError, "lock"),
    Fault("result that raises while it is pickled", RaisingWhilePickled, NotSerializableError, "not today"),
    Fault("result that exits while it is pickled", ExitingWhilePickled, NotSerializableError),
    Fault("result that raises while it is unpickled", lambda: Exploding(int, ("no number",)), SerializationError, "no number"),
    Fault("exception that cannot be pickled", raise_unpicklable, KeepsALock, "it keeps a lock"),
    Fault("exception whose str() raises", lambda: raise_error(SaysNothing()), SaysNothing),
    Fault("exception that raises while it is unpickled", lambda: raise_error(ExplodesOnArrival((int, ("no",)))), ExplodesOnArrival, "boom"),
    Fault("exception with a cause", raise_chain, ValueError, "second"),
    Fault("signal handlers changed", change_signal_handlers, value="changed"),
    Fault("alarm set and left", set_an_alarm, value="armed"),
    Fault("signals blocked", block_signals, value="blocked"),
    Fault("directory and environment changed", change_surroundings, value="changed"),
    Fault("environment cleared", clear_environment, value="cleared"),
    Fault("current directory removed", remove_own_directory, value="removed"),
    Fault("standard streams closed and replaced", replace_standard_streams, value="replaced"),
    Fault("coroutine that raises", raise_later, ValueError, "later"),
    Fault("result that exits while it is unpickled", lambda: Exploding(sys.exit, (3,)), SerializationError, "SystemExit"),
    Fault(
        "exception that exits while it is unpickled", lambda: raise_error(ExplodesOnArrival((sys.exit, (3,)))), ExplodesOnArrival, "boom"
    ),
    Fault("coroutines left behind", leave_coroutines, value="left"),
]


def look_around() -> tuple[Any, ...]:
    """What a task can expect to find as it was."""
    print("looking around")
    handlers = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1, signal.SIGALRM)]
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    streams = (sys.stdout is sys.__stdout__, sys.stderr is sys.__stderr__)
    return os.getcwd(), dict(os.environ), [repr(handler) for handler in handlers], [int(number) for number in blocked], streams


def run(body: Callable[[], Any] | None, number: int) -> Any:
    """The function of the service: the fault itself, or an ordinary task."""
    if body is not None:
        return body()
    if number == 15:
        time.sleep(0.1)  # long enough for an alarm that another has set
    return number * 2, look_around()


NOT_YET: dict[str, str] = {}
"""Promises that are not kept yet, and why; a test that passes all the same says so by failing."""


@pytest.fixture(scope="module")
def other(runner: Runner) -> Any:
    """A service that has nothing to do with it."""
    return runner.service(lambda n: n + 1, max_instances=1)


def _rows() -> list[Any]:
    def marks(fault: Fault) -> list[Any]:
        return [pytest.mark.xfail(reason=NOT_YET[fault.name], strict=True)] if fault.name in NOT_YET else []

    return [pytest.param(fault, id=fault.name.replace(" ", "-"), marks=marks(fault)) for fault in FAULTS]


@pytest.mark.parametrize("fault", _rows())
def test_a_fault_has_its_typed_outcome_and_harms_nobody(runner: Runner, row: Any, other: Any, fault: Fault):
    service = runner.service(run, max_instances=1, **fault.options)
    try:
        clean = service(None, 0).get(timeout=30)[1]
        before = [service(None, n) for n in range(10)]
        faulty = service(fault.body, 0)
        after = [service(None, n) for n in range(10, 20)]
        beside = [other(n) for n in range(20)]
        seen = outcome(faulty, fault)
        assert [future.get(timeout=30) for future in before] == [(n * 2, clean) for n in range(10)]
        assert [future.get(timeout=30) for future in after] == [(n * 2, clean) for n in range(10, 20)]
        assert service(None, 99).get(timeout=30) == (198, clean)
        assert [future.get(timeout=30) for future in beside] == list(range(1, 21))
        row(fault.name, fault.promised, seen, "42 of 42 tasks unharmed")
    finally:
        service.close(wait=False)


# ---------------------------------------------------------------------------------------------------- generators


@pytest.mark.parametrize(
    ("name", "body", "items", "error"),
    [
        ("generator that raises", generate_and_raise, [0, 1, 2], ValueError),
        ("generator that crashes", generate_and_crash, [1], WorkerCrashedError),
        ("generator of what cannot be pickled", generate_unpicklable, [1], NotSerializableError),
    ],
)
def test_a_generator_gives_what_it_had_given_before_its_fault(runner: Runner, row: Any, other: Any, name, body, items, error):
    service = runner.service(run, max_instances=1)
    faulty, after = service(body, 0), [service(None, n) for n in range(5)]
    seen: list[Any] = []
    with pytest.raises(error):
        _append_to(seen, faulty)
    assert seen == items
    assert [future.get(timeout=30)[0] for future in after] == [n * 2 for n in range(5)]
    assert other(1).get(timeout=30) == 2
    row(name, f"{len(items)} items, then {error.__name__}", f"{len(seen)} items, then {error.__name__}", "6 of 6 tasks unharmed")
    service.close(wait=False)


def _append_to(seen: list[Any], items: Any) -> None:
    for item in items:
        seen.append(item)


def generate_many() -> Any:
    for number in range(100_000):
        yield number
        print(number)


def test_a_generator_whose_consumer_is_slow_waits_for_it(runner: Runner, row: Any, other: Any):
    service = runner.service(lambda body: body(), max_instances=1)
    stream = iter(service(generate_many))
    assert [next(stream) for _ in range(3)] == [0, 1, 2]
    time.sleep(0.5)
    arrived = len(stream.items._arrived)
    assert arrived < 200
    assert other(1).get(timeout=30) == 2
    row("slow consumer of a generator", "at most a window of items ahead", f"{arrived} items ahead of 100000", "1 of 1 tasks unharmed")
    service.close(wait=False)


# ---------------------------------------------------------------------------------------------------- cancelling

TIDIED = "tidied up"


async def wait_and_tidy_up(path: str) -> None:
    try:
        await asyncio.sleep(300)
    finally:
        with open(path, "w") as file:
            file.write(TIDIED)


def sleep_and_tidy_up(path: str) -> None:
    try:
        time.sleep(300)
    finally:
        with open(path, "w") as file:
            file.write(TIDIED)


def print_forever(path: str) -> None:
    try:
        while True:
            print("x" * 1000)
    finally:
        with open(path, "w") as file:
            file.write(TIDIED)


def generate_forever(path: str) -> Any:
    try:
        yield from itertools.count()
    finally:
        with open(path, "w") as file:
            file.write(TIDIED)


@pytest.mark.parametrize("body", [wait_and_tidy_up, sleep_and_tidy_up, print_forever, generate_forever])
def test_a_running_task_that_is_cancelled_ends_by_itself_and_keeps_its_worker(runner: Runner, row: Any, tmp_path, helpers, body):
    service = runner.service(lambda body, path: body(path) if body else os.getpid(), max_instances=1)
    worker = service(None, "").get(timeout=30)
    file = tmp_path / "tidied"
    task = service(body, str(file))
    after = [service(None, "") for _ in range(10)]
    assert helpers.eventually(task.running)
    time.sleep(0.1)
    assert task.cancel()
    with pytest.raises(CancelledError):
        for _ in task:
            pass
    assert [future.get(timeout=30) for future in after] == [worker] * 10
    assert file.read_text() == TIDIED
    row(f"cancel: {body.__name__.replace('_', ' ')}", "CancelledError", "CancelledError", "10 of 10 tasks unharmed, same worker")
    service.close(wait=False)


def test_a_task_that_was_sent_ahead_is_cancelled_before_it_begins(runner: Runner, row: Any, tmp_path, helpers):
    def work(seconds: float, path: str) -> str:
        if path:
            open(path, "w").close()
        time.sleep(seconds)
        return path

    service = runner.service(work, max_instances=1)
    for future in [service(0, "") for _ in range(200)]:
        future.get(timeout=30)
    tasks = [service(0.004, str(tmp_path / f"{n}")) for n in range(100)]
    cancelled = [task for task in tasks[60:90] if task.cancel()]
    for task in tasks:
        if task in cancelled:
            with pytest.raises(CancelledError):
                task.get(timeout=30)
        else:
            task.get(timeout=30)
    ran = {int(path.name) for path in tmp_path.iterdir()}
    assert ran == set(range(100)) - {tasks.index(task) for task in cancelled}
    row("cancel: 30 tasks of a queue", "none of them runs", f"{len(ran & set(range(60, 90)))} of them ran", "70 of 70 tasks unharmed")
    service.close(wait=False)


def test_a_task_that_will_not_end_is_killed_when_that_is_asked_for(runner: Runner, row: Any, helpers):
    service = runner.service(lambda body: body() if body else "ok", max_instances=1)
    task = service(hold_the_interpreter)
    after = [service(None) for _ in range(10)]
    assert helpers.eventually(task.running)
    time.sleep(0.05)
    task.cancel(force=True)
    with pytest.raises(CancelledError):
        task.get(timeout=30)
    assert [future.get(timeout=30) for future in after] == ["ok"] * 10
    row("cancel by force: GIL held in a C loop", "CancelledError", "CancelledError", "10 of 10 tasks unharmed")
    service.close(wait=False)


def test_a_time_limit_of_one_call_stops_that_call_alone(runner: Runner, row: Any):
    service = runner.service(lambda seconds: time.sleep(seconds) or seconds, max_instances=1)
    tasks = [service(0.01), service.options(timeout=0.2)(60), service(0.01)]
    with pytest.raises(TaskTimeoutError, match=r"0\.2 s"):
        tasks[1].get(timeout=30)
    assert [tasks[0].get(timeout=30), tasks[2].get(timeout=30)] == [0.01, 0.01]
    row("time limit of a single call", "TaskTimeoutError", "TaskTimeoutError", "2 of 2 tasks unharmed")
    service.close(wait=False)


def outcome(future: Any, fault: Fault) -> str:
    """Check it against the promise, and say it in words."""
    if fault.error is None:
        value = future.get(timeout=60)
        assert fault.value(value) if callable(fault.value) else value == fault.value
        return "the value"
    with pytest.raises(BaseException) as caught:
        future.get(timeout=60)
    error = caught.value
    assert type(error).__name__ == fault.error.__name__, f"{type(error)}: {error}"
    if fault.error.__module__.startswith(("builtins", "flame_host")):
        assert type(error) is fault.error
    if fault.text:
        assert fault.text in str(error)
    for name, expected in fault.facts.items():
        assert getattr(error, name) == expected
    return type(error).__name__
