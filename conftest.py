"""What holds for every test of the workspace."""

from __future__ import annotations

import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flame_host.testing.processes import descendants, eventually


def pytest_configure() -> None:
    """A shell has SIGINT ignored in what it runs in the background, and so would all that tests start, and tell to stop, have it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def no_session_stalls() -> Iterator[None]:
    """The engine recovers from a session that makes no progress, and says so; that it came to that is a failure."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("flame_host.engine.stall")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert not told, told[0]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Whatever a test starts has ended with it; named here, where it was started, and not by whoever looks next."""
    before = set(descendants())
    yield
    if not eventually(lambda: set(descendants()) <= before):
        left = {pid: _command_line(pid) for pid in descendants() if pid not in before}
        assert not left


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") or "ended, not waited for"
    except OSError:
        return "gone meanwhile"


@pytest.fixture(scope="session")
def ray_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """One node that has Ray, pip and uv and nothing else, with an index of its own."""
    ray = pytest.importorskip("ray", reason="the group `ray` of development dependencies is not installed")
    from flame_engine_ray.testing import RayCluster

    from flame_host.testing.installers import make_wheel

    wheelhouse = tmp_path_factory.mktemp("ray-wheelhouse")
    for version in ("1.0", "2.0"):
        make_wheel(wheelhouse, "flametestdep", version)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    variables = {"FLAME_HOST_WHEELHOUSE": str(wheelhouse), "FLAME_HOST_OFFLINE": "1"}
    tools = [Path(place) for place in os.environ["PATH"].split(os.pathsep) if Path(place, "uv").is_file()]
    cluster = RayCluster(tmp_path_factory.mktemp("ray"), variables, path=tools[:1])
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.close()


@pytest.fixture
def ray_endpoint(ray_cluster: Any) -> str:
    """With this process connected: tests of other clusters may have run in between."""
    from flame_engine_ray.testing import connect

    connect(ray_cluster.address)
    return f"ray:{ray_cluster.address}"
