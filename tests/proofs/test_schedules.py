"""The real task path under many schedules: it goes on in all of them, and each old fault, put back, is found.

See ``schedules/run.py``; more steps with ``make prove``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RUN = Path(__file__).parent / "schedules" / "run.py"

FAULTS = {
    "a recall counts from the wrong end": (
        "flame_host/engine/link.py",
        "returned = [task for task in self.inflight if task.number in numbers]\n"
        "            kept = [task for task in self.inflight if task.number not in numbers]",
        "everything = list(self.inflight)\n"
        "            returned = everything[len(everything) - len(numbers) :]\n"
        "            kept = everything[: len(everything) - len(numbers)]",
        "mixed",
    ),
    "the window is not opened again after a recall": (
        "flame_host/engine/link.py",
        "                self.recalling = False\n                self.window = 1",
        "                self.recalling = False",
        "mixed",
    ),
    "who has driven leaves the socket paused, and nobody looks after it": (
        "flame_host/engine/link.py",
        "            self._paused = True\n            self._io.pause(self._sock.fileno())",
        "            self._io.pause(self._sock.fileno())\n            self._resume = lambda: None",
        "turns",
    ),
    "what is left unsent is sent once only": (
        "flame_host/engine/outbox.py",
        "            if not self._send_some():\n                self._loop.write(self._sock.fileno(), self._go_on)\n                return",
        "            if not self._send_some():\n                return",
        "sending",
    ),
    "the control thread dies of a credit that comes late": (
        "flame_host/worker/runtime/control.py",
        "                    worker.give_credit(",
        "                    if number != worker.task.number:\n                        raise SystemExit\n"
        "                    worker.give_credit(",
        "mixed",
    ),
    "a session goes to rest and is believed awake": (
        "flame_host/engine/session.py",
        "        self._watched = False\n        if self._has_work():",
        "        if self._has_work():",
        "quiet",
    ),
    "a failed start is tried again for ever": (
        "flame_host/engine/session.py",
        "        elif not others:\n            self._fail_queued(problem)\n",
        "        elif not self.executors:\n            self._fail_queued(problem)\n        self._grow()\n",
        "no_start",
    ),
    "a submitter does not look whether the session was closed": (
        "flame_host/engine/session.py",
        "looked before we queued\n            self._fail_queued(self._refusal)\n",
        "looked before we queued\n            pass\n",
        "closing",
    ),
    "the items of a stream are kept where its end goes": (
        "sdk/src/flamepy/_calls/future.py",
        'return cast(T, Stream(self._extra["items"]))\n        return',
        'self._value = Stream(self._extra["items"])\n        return',
        "streaming",
    ),
    "a callback of the user's runs in the engine's thread": (
        "sdk/src/flamepy/_calls/promise.py",
        "                callback_thread.call(self.call_back, callback)",
        "                self.call_back(callback)",
        "mixed",
    ),
    "a loop closes what somebody is about to wake it by": (
        "flame_host/engine/loop.py",
        "        with self._waking:  # not while",
        "        if True:  # not while",
        "small",
    ),
}


def explore(tree: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "PYTHONPATH": f"{tree}{os.pathsep}{tree / 'sdk' / 'src'}"}
    command = [sys.executable, str(RUN), *map(str, arguments)]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=110)


def test_a_million_steps_of_random_schedules_all_go_on():
    done = explore(ROOT, "--steps", 1_000_000)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


def test_every_schedule_with_one_unneeded_change_of_thread_goes_on():
    done = explore(ROOT, "--depth", 120)
    assert done.returncode == 0, done.stdout + done.stderr
    print(done.stdout)


@pytest.mark.parametrize("fault", FAULTS)
def test_an_old_fault_is_found_when_it_is_put_back(fault: str, tmp_path: Path):
    file, right, wrong, scenario = FAULTS[fault]
    for package in ("flame_host", "sdk/src/flamepy"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    source = (tmp_path / file).read_text()
    assert source.count(right) == 1, "the fault does not fit the code any more: rewrite it"
    (tmp_path / file).write_text(source.replace(right, wrong))
    done = explore(tmp_path, "--steps", 3_000_000, "--scenario", scenario)
    assert done.returncode in (1, 3), f"not found: {done.stdout}{done.stderr}"
    assert "FINDING in --seed" in done.stdout + done.stderr
