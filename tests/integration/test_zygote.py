"""Workers forked by the zygote of their environment, and what happens when there is none."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_host.engine.local import LocalConnection
from flame_host.testing.processes import descendants
from flame_host.testing.services import BareServices, Caller


@pytest.fixture
def connection(tmp_path: Path) -> Iterator[LocalConnection]:
    connection = LocalConnection("local:", BareServices(tmp_path))
    yield connection
    connection.close()
    assert descendants() == []


def _zygotes(connection: LocalConnection) -> list[int]:
    guardian = connection.launcher.guardian
    assert guardian is not None
    children = [int(pid) for pid in Path(f"/proc/{guardian.pid}/task/{guardian.pid}/children").read_text().split()]
    return [pid for pid in children if b"zygote.main" in Path(f"/proc/{pid}/cmdline").read_bytes() and _is_leader(pid, children)]


def _is_leader(pid: int, children: list[int]) -> bool:
    """A forked worker has the zygote's command line; the zygote has been there first."""
    return pid == min(children)


def parent(_: int = 0) -> int:
    return os.getppid()


def test_workers_are_children_of_the_guardian_and_leaders_of_their_own_sessions(connection, tmp_path):
    call = Caller(connection, BareServices(tmp_path), lambda: (os.getppid(), os.getpid() == os.getsid(0) == os.getpgid(0)))
    assert call().result(20) == (connection.launcher.guardian.pid, True)


def test_a_zygote_that_was_killed_is_missed_by_nobody(connection, tmp_path):
    services = BareServices(tmp_path)
    assert Caller(connection, services, parent)().result(20) == connection.launcher.guardian.pid
    (zygote,) = _zygotes(connection)
    os.kill(zygote, signal.SIGKILL)
    for _ in range(3):
        assert Caller(connection, services, parent)().result(20) == connection.launcher.guardian.pid


def test_a_worker_does_not_see_what_another_one_forked_alike_has_changed(connection, tmp_path):
    services = BareServices(tmp_path)

    def change() -> tuple[str | None, int]:
        import random

        before = os.environ.get("CHANGED"), random.getrandbits(64)
        os.environ["CHANGED"] = "yes"
        return before

    (first, number), (second, other) = (Caller(connection, services, change)().result(20) for _ in range(2))
    assert first is None
    assert second is None
    assert number != other


def test_an_environment_that_starts_a_thread_gets_its_workers_one_by_one(tmp_path):
    """Forking beside a thread is not safe; so it is not done."""
    site = tmp_path / "site"
    site.mkdir()
    (site / "with_thread.py").write_text("import threading, time\nthreading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n")

    class Threaded(BareServices):
        def serializer(self, format):
            inner = super().serializer(format)

            class Proxy:
                worker_modules = ("with_thread",)

                def __getattr__(self, name):
                    return getattr(inner, name)

            return Proxy()

        def support(self, environment, plan):
            directory = super().support(environment, plan)
            (tmp_path / "support").mkdir(exist_ok=True)
            for entry in [*Path(directory).iterdir(), site / "with_thread.py"]:
                link = tmp_path / "support" / entry.name
                if not link.exists():
                    link.symlink_to(entry)
            return tmp_path / "support"

    services = Threaded(tmp_path)
    threaded = LocalConnection("local:", services)
    try:
        for _ in range(2):
            assert Caller(threaded, services, parent)().result(20) == threaded.launcher.guardian.pid
        time.sleep(0.05)
        assert _zygotes(threaded) == []
    finally:
        threaded.close()
