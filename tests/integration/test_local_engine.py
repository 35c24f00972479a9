"""The local engine with real processes: calls, order, output, and every way a worker can end."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import subprocess
import sys
import textwrap
import time
import weakref
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from flame_host.api import ClosedError, InstallError, StateLostError, TaskTimeoutError, WorkerCrashedError, WorkerStartError
from flame_host.engine.local import LocalConnection
from flame_host.testing.processes import descendants, eventually
from flame_host.testing.services import BareServices, Caller


@pytest.fixture
def services(tmp_path: Path) -> BareServices:
    return BareServices(tmp_path)


@pytest.fixture
def connection(services: BareServices) -> Iterator[LocalConnection]:
    connection = LocalConnection("local:", services)
    yield connection
    connection.close()
    assert descendants() == []


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def add(a: int, b: int = 0) -> int:
    return a + b


class Counter:
    def __init__(self, initial: int = 0) -> None:
        self.count = initial

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


# ---------------------------------------------------------------------------------------------------- how workers end


@pytest.mark.parametrize(
    ("body", "words", "number", "code"),
    [
        (lambda: os._exit(3), "exited with code 3", None, 3),
        (lambda: ctypes.string_at(0), "SIGSEGV", signal.SIGSEGV, None),
        (lambda: os.abort(), "SIGABRT", signal.SIGABRT, None),
    ],
)
def test_a_task_that_takes_its_worker_down_fails_once_and_the_session_goes_on(connection, services, body, words, number, code):
    call = Caller(connection, services, lambda what: body() if what == "die" else what)
    assert call("before").result(20) == "before"
    with pytest.raises(WorkerCrashedError, match=words) as caught:
        call("die").result(20)
    assert (caught.value.signal, caught.value.exit_code) == (number, code)
    assert call("after").result(20) == "after"


def test_a_task_whose_worker_is_killed_from_outside_is_tried_again(connection, services, tmp_path):
    marker = tmp_path / "tried"

    def once_killed() -> int:
        if not marker.exists():
            marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return os.getpid()

    assert Caller(connection, services, once_killed)().result(20) > 0


def test_a_task_that_is_killed_every_time_fails_after_its_retries(connection, services):
    call = Caller(connection, services, lambda: os.kill(os.getpid(), signal.SIGKILL), retries=1)
    with pytest.raises(WorkerCrashedError, match="tried 2 times"):
        call().result(20)


class Stillborn:
    """Killed in its constructor, the first ``times``."""

    def __init__(self, attempts: Path, times: int) -> None:
        with attempts.open("a") as file:
            file.write(".")
        if attempts.stat().st_size <= times:
            os.kill(os.getpid(), signal.SIGKILL)

    def attempts(self, path: Path) -> int:
        return path.stat().st_size


def test_a_worker_that_is_killed_before_it_is_ready_is_started_again(connection, services, tmp_path):
    path = tmp_path / "attempts"
    call = Caller(connection, services, partial(Stillborn, path, 3), stateful=True, instantiate=True, retries=0)
    assert call(path, method="attempts").result(20) == 4


def test_a_worker_that_is_killed_at_every_start_fails_what_waits_with_the_reason(connection, services, tmp_path):
    path = tmp_path / "attempts"
    call = Caller(connection, services, partial(Stillborn, path, 99), stateful=True, instantiate=True)
    with pytest.raises(WorkerStartError, match="SIGKILL before it was ready"):
        call(path, method="attempts").result(20)
    assert path.stat().st_size == 4


def test_two_thousand_tasks_survive_the_killing_of_workers_among_them(connection, services):
    def work(number: int) -> int:
        time.sleep(0.0005)
        return number

    call = Caller(connection, services, work, max_instances=2, warmup=2)
    tasks = [call(number) for number in range(2000)]
    kills = 0
    while not all(task.done() for task in tasks):
        time.sleep(0.1)
        pids = [executor.pid for executor in call.session.executors if executor.window and executor.inflight]
        if pids and kills < 5:
            os.kill(pids[0], signal.SIGKILL)
            kills += 1
    assert kills >= 3
    assert [task.result(0) for task in tasks] == list(range(2000))


def test_a_stateful_service_that_loses_its_worker_says_so_from_then_on(connection, services):
    call = Caller(connection, services, Counter(1), stateful=True)
    assert call(1, method="add").result(20) == 2
    dying, queued = call(method="die"), call(1, method="add")
    with pytest.raises(WorkerCrashedError, match="state"):
        dying.result(20)
    with pytest.raises(StateLostError):
        queued.result(20)
    with pytest.raises(StateLostError):
        call(1, method="add")


class Ledger:
    """Counts, in a number and in an array too large to travel within the pickle."""

    def __init__(self) -> None:
        import numpy

        self.count = 0
        self.array = numpy.zeros(200_000)

    def add(self, die: str = "") -> tuple[int, float]:
        self.count += 1
        self.array += 1
        if die and not os.path.exists(die):
            open(die, "w").close()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.count, float(self.array[-1])

    def crash(self) -> None:
        os.abort()

    def spoil(self) -> None:
        self.lock = __import__("threading").Lock()


def test_a_stateful_service_with_checkpoints_goes_on_from_the_last_call_that_was_answered(connection, services, tmp_path):
    pytest.importorskip("numpy")
    call = Caller(connection, services, Ledger, stateful=True, instantiate=True, checkpoint=1)
    assert [call(method="add").result(20)[0] for _ in range(3)] == [1, 2, 3]
    tasks = [call(method="add"), call(str(tmp_path / "died"), method="add"), *[call(method="add") for _ in range(5)]]
    assert [task.result(20) for task in tasks] == [(n, float(n)) for n in range(4, 11)]  # each counted once, the killed one too
    with pytest.raises(WorkerCrashedError, match="SIGABRT"):
        call(method="crash").result(20)
    assert call(method="add").result(20) == (11, 11.0)


def test_what_calls_since_the_last_checkpoint_changed_is_lost(connection, services):
    pytest.importorskip("numpy")
    call = Caller(connection, services, Ledger(), stateful=True, checkpoint=3)
    for _ in range(4):
        call(method="add").result(20)
    with pytest.raises(WorkerCrashedError):
        call(method="crash").result(20)
    assert call(method="add").result(20) == (4, 4.0)


def test_a_worker_lost_before_the_first_checkpoint_begins_anew(connection, services):
    call = Caller(connection, services, Counter(5), stateful=True, checkpoint=10)
    assert call(1, method="add").result(20) == 6
    with pytest.raises(WorkerCrashedError):
        call(method="die").result(20)
    assert call(1, method="add").result(20) == 6


def test_a_state_that_cannot_be_saved_fails_the_call_that_made_it_so(connection, services):
    pytest.importorskip("numpy")
    call = Caller(connection, services, Ledger(), stateful=True, checkpoint=1)
    task = call(method="spoil")
    assert "lock" in str(task.exception(20))


def test_an_array_of_an_instance_can_be_changed_in_place(connection, services):
    numpy = pytest.importorskip("numpy")
    ledger = Ledger()
    ledger.array = numpy.zeros(1 << 20)  # large enough for shared memory
    call = Caller(connection, services, ledger, stateful=True)
    assert [call(method="add").result(20) for _ in range(2)] == [(1, 1.0), (2, 2.0)]
    assert ledger.array[-1] == 0


def test_a_task_over_its_time_limit_is_stopped_and_the_next_one_runs(connection, services):
    call = Caller(connection, services, lambda seconds: time.sleep(seconds) or "slept", timeout=0.3)
    begun = time.monotonic()
    with pytest.raises(TaskTimeoutError, match=r"0\.3 s"):
        call(30).result(20)
    assert time.monotonic() - begun < 5
    assert call(0.01).result(20) == "slept"


def test_a_python_loop_over_its_time_limit_is_interrupted_and_keeps_its_worker(connection, services):
    def loop(forever: bool) -> int:
        while forever:
            pass
        return os.getpid()

    call = Caller(connection, services, loop, timeout=0.3)
    before = call(False).result(20)
    with pytest.raises(TaskTimeoutError):
        call(True).result(20)
    assert call(False).result(20) == before


def test_an_environment_that_cannot_be_made_fails_what_waits_with_the_reason(connection, services):
    services.failure = InstallError("uv pip install failed", tail="no such package")
    with pytest.raises(InstallError, match="no such package"):
        Caller(connection, services, add)(1).result(20)


def test_an_execution_object_that_cannot_be_loaded_fails_the_task_with_its_own_error(connection, services):
    class Missing:
        def __reduce__(self):
            return (__import__, ("no_such_module_here",))

    with pytest.raises(ModuleNotFoundError, match="no_such_module_here"):
        Caller(connection, services, Missing())(1).result(20)


# ---------------------------------------------------------------------------------------------------- nothing is left


def test_grandchildren_end_with_their_worker_even_with_a_session_of_their_own(connection, services):
    def spawn() -> tuple[int, int]:
        kept = subprocess.Popen(["sleep", "300"])
        gone = subprocess.Popen(["sleep", "300"], start_new_session=True)
        return kept.pid, gone.pid

    call = Caller(connection, services, spawn)
    pids = call().result(20)
    assert all(_alive(pid) for pid in pids)
    call.session.close()
    assert eventually(lambda: not any(_alive(pid) for pid in pids))


def test_nothing_is_left_two_seconds_after_the_client_was_killed(tmp_path):
    script = tmp_path / "client.py"
    script.write_text(
        textwrap.dedent(
            """
            import os, subprocess, sys, time
            from pathlib import Path
            from flame_host.engine.local import LocalConnection
            from flame_host.testing.services import BareServices, Caller

            def spawn():
                import os, subprocess
                child = subprocess.Popen(["sleep", "300"], start_new_session=True)
                return [os.getpid(), child.pid]

            services = BareServices(Path(sys.argv[1]))
            connection = LocalConnection("local:", services)
            call = Caller(connection, services, spawn)
            pids = call().result(20)
            busy = Caller(connection, services, lambda: __import__("time").sleep(300))
            busy()
            while not (busy.session.executors and busy.session.executors[0].inflight): time.sleep(0.01)
            print(*pids, busy.session.executors[0].pid, connection.launcher.guardian.pid, flush=True)
            time.sleep(300)
            """
        )
    )
    with subprocess.Popen([sys.executable, str(script), str(tmp_path)], stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        pids = [int(word) for word in client.stdout.readline().split()]
        assert len(pids) == 4
        assert all(_alive(pid) for pid in pids)
        client.kill()
    assert eventually(lambda: not any(_alive(pid) for pid in pids), 2.0)


def test_two_hundred_sessions_leave_no_descriptor_behind(connection, services):
    def once() -> None:
        call = Caller(connection, services, add)
        call(1).result(20)
        call.session.close()

    once()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        once()
    assert eventually(lambda: len(os.listdir("/proc/self/fd")) <= before + 2), os.listdir("/proc/self/fd")


# ---------------------------------------------------------------------------------------------------- calls


def test_a_function_is_called_with_positional_and_keyword_arguments(connection, services):
    call = Caller(connection, services, add)
    assert call(1, b=3).result(20) == 4
    assert call.session.info().succeeded == 1


def test_a_stateful_session_runs_its_calls_in_order_on_one_worker(connection, services):
    call = Caller(connection, services, Counter(10), stateful=True)
    assert [task.result(20) for task in [call(1, method="add") for _ in range(500)]] == list(range(11, 511))
    assert len(call.session.executors) == 1


def test_a_class_is_instantiated_once_on_its_worker(connection, services):
    call = Caller(connection, services, Counter, stateful=True, instantiate=True)
    assert [call(amount, method="add").result(20) for amount in (1, 3)] == [1, 4]


def test_a_short_task_does_not_wait_behind_a_long_one_while_another_worker_is_free(connection, services):
    call = Caller(connection, services, lambda seconds: time.sleep(seconds) or seconds, max_instances=2, warmup=2)
    for task in [call(0) for _ in range(2000)]:  # both workers are taken for quick ones now
        task.result(20)
    long = call(3)
    begun = time.monotonic()
    for task in [call(0) for _ in range(200)]:
        task.result(20)
    assert time.monotonic() - begun < 2
    assert not long.done()


def test_large_arrays_come_back_without_a_copy_and_read_only(connection, services):
    numpy = pytest.importorskip("numpy")
    call = Caller(connection, services, lambda n: __import__("numpy").arange(n, dtype="u1"))
    array = call(4 << 20).result(20)
    assert array.nbytes == 4 << 20
    assert not array.flags.writeable
    assert int(array[-1]) == ((4 << 20) - 1) % 256
    back = Caller(connection, services, lambda values: int(values.sum()))
    assert back(numpy.ones(3 << 20, dtype="u1")).result(20) == 3 << 20


def test_results_that_are_held_are_never_written_over_and_those_let_go_are(connection, services):
    pytest.importorskip("numpy")
    call = Caller(connection, services, lambda value: __import__("numpy").full(4 << 20, value, dtype="u1"))
    held = [call(value).result(20) for value in range(8)]
    assert [set(array.tolist()[:: 1 << 16]) for array in held] == [{value} for value in range(8)]
    places = {_place(array) for array in held}
    assert len(places) == 8
    held = held[-1:]
    for value in range(8, 16):
        assert _place(call(value).result(20)) in places
    assert set(held[0].tolist()[:: 1 << 16]) == {7}


def _place(array) -> str:
    """The file of shared memory that an array lies in."""
    address = array.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        low, high = (int(end, 16) for end in line.split()[0].split("-"))
        if low <= address < high:
            return line.split()[4]
    raise AssertionError("not mapped")


@pytest.mark.parametrize("fails", [False, True])
def test_who_keeps_a_future_does_not_keep_its_arguments(connection, services, fails):
    call = Caller(connection, services, lambda data: len(data) // (0 if fails else 1))
    task = call(b"x" * (3 << 20))
    assert isinstance(task.exception(20), ZeroDivisionError if fails else type(None))
    assert eventually(lambda: task.frame is None)


def test_output_of_a_task_comes_back_with_its_number(connection, services):
    def speak(what: str) -> None:
        print(what)
        print("oops", file=sys.stderr)
        os.write(1, b"raw\n")

    call = Caller(connection, services, speak)
    task = call("hello")
    task.result(20)
    assert eventually(lambda: len(services.logs) >= 3)
    seen = {(record.stream, record.text, record.task) for record in services.logs}
    assert {("stdout", "hello\n", task.number), ("stderr", "oops\n", task.number), ("stdout", "raw\n", 0)} <= seen


def test_what_one_task_changes_the_next_does_not_see(connection, services):
    def look(change: bool) -> tuple[str, str | None, object]:
        before = (os.getcwd(), os.environ.get("LEFT_BEHIND"), signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)
        if change:
            os.chdir("/")
            os.environ["LEFT_BEHIND"] = "yes"
            signal.signal(signal.SIGTERM, lambda *_: None)
        return before

    call = Caller(connection, services, look, max_instances=1)
    first = call(True).result(20)
    assert call(False).result(20) == first


def test_a_forked_child_that_returns_from_the_task_does_not_answer_twice(connection, services):
    call = Caller(connection, services, lambda: os.fork() and os.getppid() > 0, max_instances=1)
    assert call().result(20) is True
    assert call().result(20) is True


def test_coroutines_and_generators_are_run_to_their_end(connection, services):
    async def later(value: int) -> int:
        import asyncio

        await asyncio.sleep(0)
        return value

    def count(n: int):
        yield from range(n)
        return "end"

    assert Caller(connection, services, later)(7).result(20) == 7
    task = Caller(connection, services, count)(5)
    assert task.result(20) == "end"
    assert task.items == [0, 1, 2, 3, 4]


def test_a_closed_session_does_not_keep_what_it_carried(connection, services):
    call = Caller(connection, services, bytearray(3 << 20), stateful=True, checkpoint=1)
    assert call(method="__len__").result(20) == 3 << 20
    call.session.close()
    assert len(call.session.spec.common_data.data) == 0
    assert connection.get_session(call.session.session_id).succeeded == 1


def test_a_closed_session_takes_no_more_calls(connection, services):
    call = Caller(connection, services, add)
    task = call(1)
    call.session.close()
    assert task.result(0) == 1
    with pytest.raises(ClosedError):
        call(2)


def test_closing_the_connection_in_the_middle_of_a_task_takes_no_time(connection, services):
    call = Caller(connection, services, time.sleep)
    task = call(60)
    assert eventually(lambda: call.session.executors and call.session.executors[0].inflight, 20)
    begun = time.monotonic()
    connection.close()
    assert time.monotonic() - begun < 3
    assert isinstance(task.exception(5), Exception)


def test_idle_workers_are_released_after_the_delay(connection, services):
    from flame_host.api import Application

    connection.register_application(Application("short", delay_release=0.2))
    call = Caller(connection, services, add, application="short")
    call(1).result(20)
    assert eventually(lambda: not call.session.executors, 6)
    assert call(2).result(20) == 2


def test_a_worker_that_is_gone_is_let_go_of(connection, services):
    """Not kept, with its buffers, until some time limit of its life would have come."""
    call = Caller(connection, services, add)
    call(1).result(20)
    gone = weakref.ref(call.session.executors[0])
    os.kill(gone().pid, signal.SIGKILL)

    def is_let_go_of() -> bool:
        gc.collect()
        return gone() is None

    assert call(2).result(20) == 2
    assert eventually(is_let_go_of, 20)
