"""What holds for every test of the workspace."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest


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


@pytest.fixture(scope="session")
def ray_endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Ray cluster of one node that has Ray and nothing else, with an index of its own; this process stays connected to it."""
    pytest.importorskip("ray", reason="the group `ray` of development dependencies is not installed")
    from flame_engine_ray.testing import RayCluster

    from flame_host.testing.installers import make_wheel

    wheelhouse = tmp_path_factory.mktemp("ray-wheelhouse")
    for version in ("1.0", "2.0"):
        make_wheel(wheelhouse, "flametestdep", version)
    os.environ["RAY_AUTH_MODE"] = "disabled"
    tools = [Path(place) for place in os.environ["PATH"].split(os.pathsep) if Path(place, "uv").is_file()]
    cluster = RayCluster(
        tmp_path_factory.mktemp("ray"), {"FLAME_HOST_WHEELHOUSE": str(wheelhouse), "FLAME_HOST_OFFLINE": "1"}, path=tools[:1]
    )
    try:
        import ray

        ray.init(address=cluster.address, log_to_driver=False, logging_level="error")
        yield f"ray:{cluster.address}"
        ray.shutdown()
    finally:
        cluster.close()
