"""A cluster to try: in memory with real hosts as executors; with FLAME_E2E_ENDPOINT set, the real one that answers there."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from flame_engine_flame.applications import OURS
from flame_serialize_cloudpickle.codec import by_value

from flame_host import Host
from flame_host.testing.cluster import FakeCluster
from flame_host.wire.convert import CAPABILITIES_VARIABLE, capabilities_to_text
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2


@pytest.fixture(scope="session")
def register() -> Callable[[FakeCluster], None]:
    return register_host


def register_host(cluster: FakeCluster, name: str = OURS) -> None:
    """What ``flame-host template`` and ``flmctl register`` do."""
    variables = {CAPABILITIES_VARIABLE: capabilities_to_text(Host().capabilities())}
    spec = types_pb2.ApplicationSpec(
        command=sys.executable,
        arguments=["-m", "flame_host"],
        environments=[types_pb2.Environment(name=key, value=value) for key, value in variables.items()],
        delay_release=60,
    )
    cluster.RegisterApplication(frontend_pb2.RegisterApplicationRequest(name=name, application=spec), None)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Short: sockets live there."""
    path = Path(tempfile.mkdtemp(prefix="fc-", dir="/tmp"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster(directory: Path) -> Iterator[FakeCluster]:
    environment = {**os.environ, "FLAME_HOST_ROOT": str(directory / "root")}
    with FakeCluster(directory, environment=environment) as cluster:
        register_host(cluster)
        yield cluster


@pytest.fixture(autouse=True)
def travelling(request: pytest.FixtureRequest) -> Iterator[None]:
    """Executors have neither pytest nor this directory: what tests call goes by value."""
    with by_value([name for name in ("flame_host.testing.engine_contract", request.module.__name__) if name in sys.modules]):
        yield
