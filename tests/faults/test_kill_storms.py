"""Processes killed at the worst moments: workers among two thousand tasks, the client in every phase of provisioning."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner

from flame_host.api import ClosedError, WorkerCrashedError, WorkerError
from flame_host.engine.local import LocalConnection
from flame_host.testing.services import BareServices, Caller

TASKS = 2000
KILLS = 50


def test_no_task_is_lost_while_its_workers_are_killed_at_random(tmp_path: Path, row: Any):
    """Killed from outside, wherever it is: starting, idle, between two tasks or within one."""

    def work(number: int) -> int:
        time.sleep(0.001)
        return number

    connection = LocalConnection("local:", BareServices(tmp_path))
    chance = random.Random(7)
    try:
        call = Caller(connection, BareServices(tmp_path), work, max_instances=2, warmup=2, retries=1000)
        tasks = [call(number) for number in range(TASKS)]
        killed: set[int] = set()
        extra = 0
        while not all(task.done() for task in tasks) or len(killed) < KILLS:
            if all(task.done() for task in tasks):  # too quick for us: more of the same
                extra += 500
                tasks += [call(len(tasks) + n) for n in range(500)]
            time.sleep(chance.uniform(0, 0.03))
            pids = [executor.pid for executor in call.session.executors if executor.pid and executor.pid not in killed]
            if pids and len(killed) < KILLS:
                pid = chance.choice(pids)
                killed.add(pid)
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        assert [task.result(30) for task in tasks] == list(range(len(tasks)))
        lost = sum(1 for task in tasks if not task.done())
        row(f"SIGKILL of {len(killed)} workers among {len(tasks)} tasks", "0 lost", f"{lost} lost", "each task one right answer")
    finally:
        connection.close()


def test_a_guardian_that_is_killed_takes_its_workers_along_and_nobody_waits_for_ever(tmp_path: Path, row: Any, helpers: Any):
    connection = LocalConnection("local:", BareServices(tmp_path))
    try:
        call = Caller(connection, BareServices(tmp_path), time.sleep, max_instances=1)
        call(0).result(30)
        running, queued = call(60), call(60)
        assert helpers.eventually(lambda: call.session.executors and call.session.executors[0].inflight)
        worker = call.session.executors[0].pid
        os.kill(connection.launcher.guardian.pid, signal.SIGKILL)
        with pytest.raises((WorkerError, ClosedError)):
            running.result(20)
        with pytest.raises((WorkerError, ClosedError)):
            queued.result(20)
        assert helpers.eventually(lambda: not helpers.alive(worker), 2.0)
        row("SIGKILL of the guardian process", "WorkerError for all", "WorkerError for all", "its workers are gone")
    finally:
        connection.close()


def test_a_stateful_service_says_that_its_state_is_gone(runner: Runner, row: Any):
    class Counter:
        def __init__(self) -> None:
            self.count = 0

        def add(self) -> int:
            self.count += 1
            return self.count

        def pid(self) -> int:
            return os.getpid()

    victim, bystander = runner.service(Counter), runner.service(Counter)
    assert [victim.add().get(timeout=30), bystander.add().get(timeout=30)] == [1, 1]
    os.kill(victim.pid().get(timeout=30), signal.SIGKILL)
    time.sleep(0.2)
    with pytest.raises(WorkerError) as caught:
        victim.add().get(timeout=30)
    assert bystander.add().get(timeout=30) == 2
    row("SIGKILL of an idle stateful worker", "StateLostError", type(caught.value).__name__, "1 of 1 services unharmed")
    assert not isinstance(caught.value, WorkerCrashedError)


# ---------------------------------------------------------------------------------------------------- the client

CLIENT = '''
import os, signal, subprocess, sys, threading, types
from pathlib import Path
from flame_host import Host
from flame_host.api import Application, PackageRef, Payload, Plan, SessionSpec, hookimpl
from flame_host.testing.services import RecordingTask

root, archive, digest, point, pids = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], sys.argv[4], Path(sys.argv[5])

def reach(name):
    """The client dies here, as by a power cut, with a grandchild in a session of its own."""
    if name == point:
        child = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        with pids.open("a") as file:
            file.write(f"{child.pid}\\n")
        os.kill(os.getpid(), signal.SIGKILL)

class Store:
    schemes = ("faulty",)
    def publish(self, path, location, *, name, digest, overwrite=False): raise NotImplementedError
    def delete(self, url): raise NotImplementedError
    def exists(self, url): return True
    def fetch(self, url, target, *, size_limit, deadline):
        reach("before-fetch")
        content = archive.read_bytes()
        with target.open("wb") as file:
            file.write(content[: len(content) // 2])
            file.flush()
            reach("half-fetched")
            file.write(content[len(content) // 2 :])
        reach("fetched")

class Installer:
    name = "faulty"
    def __init__(self, real): self.real = real
    def identity(self): return "faulty " + self.real.identity()
    def find_python(self, version): return self.real.find_python(version)
    def install(self, request):
        reach("before-install")
        (request.target / "half").write_text("made")
        reach("half-installed")
        (request.target / "half").unlink()
        threading.Timer(0.02, reach, ["while-installing"]).start()
        python = self.real.install(request)
        reach("installed")
        return python

plugin = types.ModuleType("faulty_plugin")
plugin.flame_stores = hookimpl(lambda: [Store()])
def flame_installers():
    from flame_install_uv.uv import UvInstaller
    return [Installer(UvInstaller())]
plugin.flame_installers = hookimpl(flame_installers)

def audit(event, arguments):
    """Crash points between the lines of the host: where it renames, locks and starts."""
    if event == "os.rename":
        source, target = str(arguments[0]), str(arguments[1])
        if "/markers/trees-" in target: reach("before-tree-marker")
        elif "/markers/envs-" in target: reach("before-environment-marker")
        elif source.endswith(".tree"): reach("before-tree-rename")
    elif event == "subprocess.Popen" and "unpack/child.py" in str(arguments[1]):
        reach("before-unpack")
        threading.Timer(0.02, reach, ["while-unpacking"]).start()
sys.addaudithook(audit)

host = Host(root=root, offline=True, plugins=[("faulty", plugin)])
plan = Plan(store="faulty", installer="faulty")
application = Application("crash", PackageRef("faulty:///app.tar.gz", digest, archive.stat().st_size, "tar.gz"), plan)
connection = host.connect("local:")
connection.register_application(application)
reach("registered")
serializer = host.serializer("cloudpickle/1")

def work():
    import os, subprocess
    from crashing import VALUE
    child = subprocess.Popen(["sleep", "300"], start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return VALUE, [os.getpid(), child.pid]

session = connection.open_session(SessionSpec("crash", Payload("cloudpickle/1", serializer.dumps(work))))
task = RecordingTask(serializer)
session.submit(task, "", serializer.dumps(((), {})))
reach("submitted")
value, born = task.result(60)
with pids.open("a") as file:
    file.write("".join(f"{pid}\\n" for pid in born))
reach("worked")
connection.close()
reach("closed")
print(value)
'''

POINTS = [
    "registered", "submitted", "before-fetch", "half-fetched", "fetched", "before-unpack", "while-unpacking", "before-tree-rename",
    "before-tree-marker",
    "before-install", "half-installed", "while-installing", "installed", "before-environment-marker", "worked", "closed",
]  # fmt: skip


@pytest.fixture
def crashing(tmp_path: Path, faults_home: Path) -> Any:
    """Runs the client to a crash point, or to its end."""
    import hashlib

    source = tmp_path / "project"
    source.mkdir()
    (source / "crashing.py").write_text("VALUE = 'whole'\n")
    archive = tmp_path / "app.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(source / "crashing.py", "crashing.py")
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    script = tmp_path / "client.py"
    script.write_text(CLIENT)

    def run(point: str) -> subprocess.CompletedProcess[str]:
        arguments = [str(tmp_path / "root"), str(archive), digest, point, str(tmp_path / "pids")]
        return subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=20)

    return run


def _running_below(root: Path) -> list[int]:
    """Processes that work on this root: workers, installers, unpackers."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                if str(root).encode() in (entry / "cmdline").read_bytes():
                    found.append(int(entry.name))
    return found


@pytest.mark.parametrize("point", POINTS)
def test_a_client_killed_while_it_provisions_leaves_nothing_half_made_that_is_used(
    point: str, crashing: Any, tmp_path: Path, row: Any, helpers: Any
):
    segments = {name for name in os.listdir("/dev/shm") if "flame" in name or name.startswith("psm_")}
    first = crashing(point)
    assert first.returncode == -signal.SIGKILL, first.stderr
    pids = [int(line) for line in (tmp_path / "pids").read_text().split()]
    begun = time.monotonic()
    # The grandchild the client itself has started is nobody's: only what stands below the guardian is looked after.
    own, below = pids[-1], pids[:-1]
    os.kill(own, signal.SIGKILL)
    root = tmp_path / "root"
    assert helpers.eventually(lambda: not any(map(helpers.alive, below)) and not _running_below(root), 2.0), "processes left after 2 s"
    gone = time.monotonic() - begun
    for marker in root.glob("markers/trees-*.json"):
        assert (root / "trees" / marker.stem.partition("-")[2] / "crashing.py").read_text() == "VALUE = 'whole'\n"
    second = crashing("none")
    assert (second.returncode, second.stdout) == (0, "whole\n"), second.stderr
    assert {name for name in os.listdir("/dev/shm") if "flame" in name or name.startswith("psm_")} <= segments
    below = [int(line) for line in (tmp_path / "pids").read_text().split()]
    assert helpers.eventually(lambda: not any(map(helpers.alive, below)), 2.0)
    row(f"SIGKILL of the client: {point}", "next start works", "next start works", f"0 half-made used, 0 left after {gone:.1f} s")
