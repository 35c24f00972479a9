"""Content-addressed directories: built once, whole or not there, never taken from under a user."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from flame_host._packages.directories import ContentStore
from flame_host.api import ConfigError, InstallError, ProvisionError

KEY, OTHER = "ab" * 32, "cd" * 32


def _build_slowly(root: str, log: str) -> None:
    def build(target: Path) -> dict[str, str]:
        with open(log, "a") as stream:
            stream.write("built\n")
        time.sleep(0.3)
        (target / "file").write_text("content")
        return {"made": "yes"}

    entry = ContentStore(Path(root)).ensure("envs", KEY, build)
    assert (entry.path / "file").read_text() == "content"
    time.sleep(0.5)  # in use for longer than others want to wait


def _die_while_building(root: str) -> None:
    def build(target: Path) -> None:
        (target / "half").write_text("made")
        os.kill(os.getpid(), signal.SIGKILL)

    ContentStore(Path(root)).ensure("envs", KEY, build)


def _start(function: Callable[..., None], *args: str) -> subprocess.Popen[bytes]:
    """A process of its own for it. Not one of multiprocessing: that leaves its resource tracker behind."""
    code = "import runpy, sys; runpy.run_path(sys.argv[1])[sys.argv[2]](*sys.argv[3:])"
    return subprocess.Popen([sys.executable, "-c", code, __file__, function.__name__, *args])


def test_a_builder_that_is_killed_leaves_nothing_that_is_used(tmp_path: Path):
    assert _start(_die_while_building, str(tmp_path)).wait(30) == -signal.SIGKILL
    store = ContentStore(tmp_path)
    assert store.find("envs", KEY) is None
    entry = store.ensure("envs", KEY, lambda target: (target / "whole").write_text("made") and None)
    assert sorted(path.name for path in entry.path.iterdir()) == ["whole"]


def test_eight_processes_that_ask_at_once_build_once(tmp_path: Path):
    log = tmp_path / "log"
    processes = [_start(_build_slowly, str(tmp_path / "root"), str(log)) for _ in range(8)]
    assert [process.wait(30) for process in processes] == [0] * 8
    assert log.read_text() == "built\n"


def test_a_failed_build_is_tried_again_by_the_next_who_asks(tmp_path: Path):
    store = ContentStore(tmp_path)

    def fail(target: Path) -> None:
        (target / "half").write_text("made")
        raise InstallError("no luck", tail="the last line")

    with pytest.raises(InstallError, match="no luck"):
        store.ensure("envs", KEY, fail)
    assert not (tmp_path / "envs" / KEY).exists()
    assert store.ensure("envs", KEY, lambda target: {"tried": 2}).facts == {"tried": 2}


def test_who_waited_for_a_build_that_failed_gets_the_same_error(tmp_path: Path):
    store = ContentStore(tmp_path)
    began = threading.Event()
    errors: list[BaseException] = []

    def fail_slowly(target: Path) -> None:
        began.set()
        time.sleep(0.2)
        raise InstallError("no luck", hint="try harder")

    def ask() -> None:
        try:
            store.ensure("envs", KEY, fail_slowly)
        except BaseException as error:
            errors.append(error)

    first = threading.Thread(target=ask)
    first.start()
    began.wait()
    began.clear()
    second = threading.Thread(target=ask)
    second.start()
    first.join()
    second.join()
    assert not began.is_set()
    assert [(type(error), error.message, error.hint) for error in errors] == [(InstallError, "no luck", "try harder")] * 2


def test_a_damaged_marker_means_the_directory_does_not_exist(tmp_path: Path):
    store = ContentStore(tmp_path)
    store.ensure("envs", KEY, lambda target: None).release()
    (tmp_path / "markers" / f"envs-{KEY}.json").write_text("{")
    assert store.find("envs", KEY) is None


def test_a_directory_in_use_is_never_collected(tmp_path: Path):
    store = ContentStore(tmp_path)
    entry = store.ensure("envs", KEY, lambda target: None)
    store.ensure("envs", OTHER, lambda target: None).release()
    assert [info.key for info in ContentStore(tmp_path).prune(float("inf"))] == [OTHER]
    assert entry.path.is_dir()
    entry.release()
    assert [info.key for info in store.prune(float("inf"))] == [KEY]
    assert not entry.path.exists()


def test_only_what_was_not_used_since_is_collected_and_a_dry_run_collects_nothing(tmp_path: Path):
    store = ContentStore(tmp_path)
    store.ensure("envs", KEY, lambda target: None).release()
    os.utime(tmp_path / "locks" / f"envs-{KEY}", (1, 1))
    store.ensure("envs", OTHER, lambda target: None).release()
    assert [info.key for info in store.prune(time.time() - 60, dry_run=True)] == [KEY]
    assert (tmp_path / "envs" / KEY).exists()
    assert [info.key for info in store.prune(time.time() - 60)] == [KEY]
    assert [info.key for info in store.entries()] == [OTHER]


def test_what_a_killed_builder_left_is_shown_and_collected(tmp_path: Path):
    (tmp_path / "envs" / "half").mkdir(parents=True)
    store = ContentStore(tmp_path)
    assert [(info.key, info.complete) for info in store.entries()] == [("half", False)]
    assert len(store.prune(0)) == 1


def test_the_marker_keeps_the_builders_facts(tmp_path: Path):
    ContentStore(tmp_path).ensure("envs", KEY, lambda target: {"python": "3.11"}).release()
    entry = ContentStore(tmp_path).find("envs", KEY)
    assert entry is not None
    assert entry.facts == {"python": "3.11"}
    assert json.loads((tmp_path / "markers" / f"envs-{KEY}.json").read_text())["facts"] == {"python": "3.11"}


def test_an_error_remembered_under_an_unknown_name_is_still_ours(tmp_path: Path):
    store = ContentStore(tmp_path)
    errors: list[BaseException] = []

    def ask() -> None:
        try:
            store.ensure("envs", KEY, lambda target: None)
        except BaseException as error:
            errors.append(error)

    (tmp_path / "locks").mkdir()
    with (tmp_path / "locks" / f"envs-{KEY}").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another process is building
        waiting = threading.Thread(target=ask)
        waiting.start()
        time.sleep(0.1)
        (tmp_path / "failures").mkdir()
        record = {"type": "NoSuchError", "state": {"message": "from a newer host"}, "time": time.time()}
        (tmp_path / "failures" / f"envs-{KEY}.json").write_text(json.dumps(record))
    waiting.join()
    assert [(type(error), str(error)) for error in errors] == [(ProvisionError, "from a newer host")]


@pytest.mark.parametrize("key", [f"{KEY}~0", f"{KEY}~", f"{KEY}~1/../x", f"{KEY}~1000", f"{KEY}~1~1", f"~1{KEY}"])
def test_a_generation_makes_no_key_of_what_is_none(tmp_path: Path, key: str):
    with pytest.raises(ConfigError, match="is no key"):
        ContentStore(tmp_path).find("trees", key)
    assert ContentStore(tmp_path).find("trees", f"{KEY}~1") is None
