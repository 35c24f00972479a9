"""What somebody found who had not seen the other tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from flamepy import Runner

from flame_host.api import ClosedError

pytestmark = pytest.mark.timeout(60)


def ident(value: int) -> int:
    return value


def slow(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def fail() -> None:
    raise LookupError("first of a chain")


class Notes:
    def __init__(self) -> None:
        self.seen: list[object] = []

    def note(self, what: object) -> int:
        self.seen.append(what)
        return len(self.seen)

    def nap(self, seconds: float) -> float:
        time.sleep(seconds)
        return seconds


@pytest.mark.parametrize("length", [300, 2000])
def test_the_failure_of_the_first_reaches_the_last_of_a_long_chain(local: Runner, length: int) -> None:
    gate = local.service(slow)(0.5)
    first = local.service(fail)
    service = local.service(ident)
    chain = [local.service(lambda _: fail())(gate)]
    for _ in range(length):
        chain.append(service(chain[-1]))
    assert isinstance(chain[-1].exception(40), LookupError)
    assert all(future.done() for future in chain)
    assert isinstance(first().exception(20), LookupError)


def test_cancelling_the_first_of_a_long_chain_cancels_the_last(local: Runner) -> None:
    service = local.service(ident)
    chain = [local.service(slow)(30)]
    for _ in range(1000):
        chain.append(service(chain[-1]))
    chain[0].cancel(force=True)
    assert all(future.wait(30) for future in chain)
    assert chain[-1].cancelled()


def test_calls_that_wait_for_arguments_are_made_before_a_service_closes() -> None:
    with Runner("held", engine="local", package=False, logs="none") as rr:
        one, other = rr.service(slow), rr.service(ident)
        stateful = rr.service(Notes)
        futures = [other(one(0.3)), stateful.note(one(0.3))]
        last = rr.service(ident)(one(0.2))
        last_service = rr._services[-1]
        last_service.close()
        assert last.get(1) == 0.2
    assert futures[0].get(1) == 0.3
    assert futures[1].get(1) == 1


def test_a_forked_child_is_told_whose_runner_it_is_and_disturbs_nothing(local: Runner) -> None:
    notes = local.service(Notes)
    assert notes.note("before").get(20) == 1
    pending = notes.nap(0.5)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        said = []
        for ask in (lambda: notes.note("child").get(5), lambda: pending.get(5)):
            try:
                ask()
                said.append("answered")
            except ClosedError as error:
                said.append("refused" if str(os.getppid()) in str(error) else str(error))
            except BaseException as error:
                said.append(repr(error))
        local.close()
        os.write(writing, ",".join(said).encode())
        os._exit(0)
    os.close(writing)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reading, 1000) == b"refused,refused"
    os.close(reading)
    assert pending.get(20) == 0.5
    assert notes.note("after").get(20) == 2


def test_a_signal_handler_may_wait_for_a_call(local: Runner) -> None:
    notes, other = local.service(Notes), local.service(ident)
    other(0).get()
    got: list[int] = []
    before = signal.signal(signal.SIGALRM, lambda *_: got.append(notes.note("from the handler").get(20)))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.2)
        assert notes.nap(1.0).get(30) == 1.0
    finally:
        signal.signal(signal.SIGALRM, before)
    assert got == [1]
    assert notes.note("later").get(20) == 2


INTERRUPTED = """
import os, random, signal, threading, time
from flamepy import Runner

class Notes:
    def __init__(self): self.count = 0
    def note(self, what): self.count += 1; return self.count
    def total(self): return self.count

def ident(x): return x

signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored in what it runs in the background
chance = random.Random(3)
with Runner("interrupted", package=False, logs="none") as rr:
    plain, notes = rr.service(ident), rr.service(Notes, checkpoint=1)
    plain(0).get(), notes.total().get()
    done = plain(1)
    done.get()
    hits = 0
    for turn in range(40):
        try:
            threading.Timer(chance.random() * 0.004, os.kill, (os.getpid(), signal.SIGINT)).start()
            for n in range(400):
                plain(n).get()
                notes.note(done)
                rr.service(ident).close(wait=False) if n == 7 else None
            time.sleep(0.05)
        except KeyboardInterrupt:
            hits += 1
        assert plain(turn).get(20) == turn
        assert notes.total().get(20) >= 0
        fresh = rr.service(ident)
        assert fresh(turn).get(20) == turn
        fresh.close()
    print("went on after", hits)
"""


def test_a_program_goes_on_after_each_ctrl_c(project: Path) -> None:
    (project / "main.py").write_text(textwrap.dedent(INTERRUPTED))
    done = subprocess.run([sys.executable, "main.py"], capture_output=True, text=True, timeout=55)
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) > 5


def test_few_descriptors_are_enough_for_a_worker(project: Path) -> None:
    (project / "main.py").write_text(
        "from flamepy import Runner\nwith Runner('few', package=False, logs='none') as rr:\n    print(rr.service(abs)(-3).get(20))\n"
    )
    command = ["/bin/sh", "-c", 'ulimit -n 64; exec "$0" main.py', sys.executable]
    done = subprocess.run(command, capture_output=True, text=True, timeout=50)
    assert done.stdout == "3\n", done.stderr


def test_no_thread_is_left_when_the_last_runner_is_closed(project: Path) -> None:
    with Runner("threads", engine="local", package=False, logs="none") as rr:
        rr.service(ident)(1).get(20)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline and any(thread.name in ("flame-io", "flame-supervisor") for thread in threading.enumerate()):
        time.sleep(0.02)
    assert not [thread.name for thread in threading.enumerate() if thread.name in ("flame-io", "flame-supervisor")]
