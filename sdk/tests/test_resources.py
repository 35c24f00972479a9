"""``resreq=`` and ``priority=`` on this machine: counted, given, and refused where they mean nothing."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from flamepy import Runner

from flame_host.api import ConfigError, Resources

CORES = len(os.sched_getaffinity(0))


def begin_and_end(log: str, name: str) -> str:
    with open(log, "a") as stream:
        stream.write(f"+{name}\n")
    time.sleep(0.15)
    with open(log, "a") as stream:
        stream.write(f"-{name}\n")
    return os.environ.get("CUDA_VISIBLE_DEVICES", "not said")


def most_at_once(log: Path) -> int:
    running = most = 0
    for line in log.read_text().splitlines():
        running += 1 if line.startswith("+") else -1
        most = max(most, running)
    return most


@pytest.mark.parametrize(("need", "fits"), [("cpu=1", CORES), (f"cpu={CORES}", 1), ("cpu=0.5", 2 * CORES)])
def test_no_more_workers_run_at_a_time_than_the_machine_has_room_for(local: Runner, tmp_path: Path, need: str, fits: int) -> None:
    log = tmp_path / "log"
    services = [local.service(begin_and_end, resreq=need, max_instances=8) for _ in range(3)]
    for future in [service(str(log), f"{n}") for n, service in enumerate(services) for _ in range(2 * CORES)]:
        future.get(50)
    assert 1 <= most_at_once(log) <= fits


def test_a_service_that_waits_gets_what_an_idle_worker_of_another_has(local: Runner, tmp_path: Path) -> None:
    first = local.service(begin_and_end, resreq=f"cpu={CORES}")
    first(str(tmp_path / "log"), "first").get(30)
    began = time.monotonic()  # its worker is kept for a minute, unless somebody needs the room
    local.service(begin_and_end, resreq={"cpu": CORES})(str(tmp_path / "log"), "second").get(30)
    assert time.monotonic() - began < 20


def test_the_most_urgent_of_those_that_wait_is_served_first(local: Runner, tmp_path: Path) -> None:
    log = tmp_path / "log"
    holder = local.service(begin_and_end, resreq=f"cpu={CORES}")
    held = [holder(str(log), "holder") for _ in range(4)]
    while not log.exists():
        time.sleep(0.01)
    late = [
        local.service(begin_and_end, resreq=f"cpu={CORES}", priority=priority)(str(log), name)
        for name, priority in (("low", 1), ("high", 9), ("middle", 5))
    ]
    for future in [*held, *late]:
        future.get(50)
    begun = [line[1:] for line in log.read_text().splitlines() if line.startswith("+") and line != "+holder"]
    assert begun == ["high", "middle", "low"]


def test_gpus_are_given_by_the_variable_that_libraries_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    with Runner("gpus", engine="local", logs="none") as rr:
        service = rr.service(begin_and_end, resreq="cpu=0.1,gpu=1", max_instances=2)
        seen = {future.get(30) for future in [service(str(tmp_path / "log"), "x") for _ in range(6)]}
        none = rr.service(begin_and_end, resreq="cpu=0.1")(str(tmp_path / "log"), "y").get(30)
    assert seen <= {"4", "6"}
    assert seen
    assert none == ""


@pytest.mark.parametrize("need", ["cpu=100000", "mem=1000000g", "gpu=4096", Resources(cpu=1e6)])
def test_what_can_never_be_had_is_refused_when_the_service_is_made(runner: Runner, need: object) -> None:
    with pytest.raises(ConfigError, match="no worker on this machine"):
        runner.service(begin_and_end, resreq=need)


@pytest.mark.parametrize(
    ("need", "words"),
    [
        ("cpus=1", "unknown resource 'cpus'"),
        ("cpu", "has no amount"),
        ("cpu=many", "no number of cpu"),
        ("mem=2x", "no size"),
        ("gpu=0.5", "no number"),
    ],
)
def test_what_is_no_amount_is_refused(runner: Runner, need: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        runner.service(begin_and_end, resreq=need)


def test_a_priority_without_resources_is_refused(runner: Runner) -> None:
    with pytest.raises(ConfigError, match="priority="):
        runner.service(begin_and_end, priority=3)
