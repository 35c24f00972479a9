"""Three nodes, each with a root of its own, and what happens when something of them dies."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import cloudpickle
import pytest

ray = pytest.importorskip("ray", reason="the group `ray` of development dependencies is not installed")

from flame_engine_ray.connection import RayConnection  # noqa: E402
from flame_engine_ray.testing import RayCluster, connect  # noqa: E402

from flame_host.api import StateLostError, WorkerCrashedError  # noqa: E402
from flame_host.testing.called import Counter  # noqa: E402
from flame_host.testing.processes import eventually  # noqa: E402
from flame_host.testing.services import BareServices, Caller  # noqa: E402

pytestmark = pytest.mark.timeout(300)
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes do not have this file
_PATIENCE = 120.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RayCluster]:
    """A head for nothing but that, so that everything runs on nodes that may die."""
    os.environ["RAY_AUTH_MODE"] = "disabled"
    tools = [Path(place) for place in os.environ["PATH"].split(os.pathsep) if Path(place, "uv").is_file()]
    cluster = RayCluster(tmp_path_factory.mktemp("ray"), {"FLAME_HOST_OFFLINE": "1"}, cpus=0, path=tools[:1])
    try:
        yield cluster
    finally:
        ray.shutdown()
        cluster.close()


@pytest.fixture(scope="module")
def nodes(cluster: RayCluster) -> list[int]:
    """Two of one CPU. The last test takes one of them away."""
    return [cluster.add_node(cpus=1) for _ in range(2)]


@pytest.fixture
def services(tmp_path: Path) -> BareServices:
    return BareServices(tmp_path)


@pytest.fixture
def connection(cluster: RayCluster, nodes: list[int], services: BareServices) -> Iterator[RayConnection]:
    connect(cluster.address)
    assert eventually(lambda: sum(node["Resources"].get("CPU", 0) for node in ray.nodes() if node["Alive"]) == 2, 60)
    connection = RayConnection(f"ray:{cluster.address}", services)
    yield connection
    connection.close()


def slowly(number: int) -> tuple[int, str]:
    time.sleep(0.01)
    return number, os.environ["FLAME_HOST_ROOT"]


def die(number: int) -> None:
    os.kill(os.getpid(), number)


def kill_the_actor() -> None:
    """The worker's guardian is a child of the actor's process."""
    guardian = os.getppid()
    os.kill(int(Path(f"/proc/{guardian}/stat").read_text().rpartition(")")[2].split()[1]), signal.SIGKILL)
    time.sleep(60)


def test_a_node_that_is_out_of_reach_for_ten_seconds_goes_on_where_it_was(connection, services, cluster, nodes):
    call = Caller(connection, services, Counter(), stateful=True)
    assert call(1, method="add").result(_PATIENCE) == 1
    for node in nodes:
        cluster.freeze_node(node, True)
    tasks = [call(1, method="add") for _ in range(100)]
    time.sleep(10)
    assert not any(task.done() for task in tasks)
    for node in nodes:
        cluster.freeze_node(node, False)
    assert [task.result(_PATIENCE) for task in tasks] == list(range(2, 102))
    call.session.close(wait=False)


def test_a_stateful_service_whose_actor_dies_says_so_or_goes_on_from_its_checkpoint(connection, services):
    class Fragile(Counter):
        def end(self) -> None:
            kill_the_actor()

    without = Caller(connection, services, Fragile(), stateful=True)
    assert without(5, method="add").result(_PATIENCE) == 5
    assert isinstance(without(method="end").exception(_PATIENCE), WorkerCrashedError)
    with pytest.raises(StateLostError):
        without(1, method="add").result(_PATIENCE)
    saved = Caller(connection, services, Fragile(), stateful=True, checkpoint=1, retries=0)
    assert saved(5, method="add").result(_PATIENCE) == 5
    assert isinstance(saved(method="end").exception(_PATIENCE), WorkerCrashedError)
    assert saved(1, method="add").result(_PATIENCE) == 6
    without.session.close(wait=False)
    saved.session.close(wait=False)


def test_a_worker_that_dies_says_how_and_its_actor_serves_the_next(connection, services):
    call = Caller(connection, services, die, max_instances=1)
    error = call(signal.SIGSEGV).exception(_PATIENCE)
    assert isinstance(error, WorkerCrashedError)
    assert error.signal == signal.SIGSEGV
    actors = {worker.actor for worker in connection.launcher._workers.values()}
    assert isinstance(call(signal.SIGSEGV).exception(_PATIENCE), WorkerCrashedError)
    assert {worker.actor for worker in connection.launcher._workers.values()} <= actors
    call.session.close(wait=False)


def test_the_actors_of_a_client_that_dies_end_with_it(connection, services, cluster, tmp_path):
    program = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
import ray
from flame_engine_ray.connection import RayConnection
from flame_host.testing.services import BareServices, Caller
services = BareServices()
connection = RayConnection("ray:{cluster.address}", services)
call = Caller(connection, services, os.getpid)
print(call().result(120), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
    import subprocess

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=180)
    worker = int(done.stdout.split()[-1])
    assert eventually(lambda: not Path(f"/proc/{worker}").exists(), 30)


def test_a_node_that_dies_among_two_thousand_tasks_costs_none_of_them(connection, services, cluster, nodes):
    call = Caller(connection, services, slowly, max_instances=2, warmup=2)
    tasks = [call(number) for number in range(2000)]
    assert eventually(lambda: sum(task.done() for task in tasks) > 200, _PATIENCE)
    assert eventually(lambda: len({task.result()[1] for task in tasks if task.done()}) == 2, _PATIENCE)
    cluster.kill_node(nodes[0])
    assert [task.result(_PATIENCE)[0] for task in tasks] == list(range(2000))
    call.session.close(wait=False)
