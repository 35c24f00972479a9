"""The engine of Flame clusters keeps the contract of engines, with our host as executors."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flame_engine_flame.endpoint import cluster_of
from flame_engine_flame.plugin import FlameEngine

from flame_host.api import (
    CallOptions,
    ConfigError,
    ProvisionError,
    StateLostError,
    TaskTimeoutError,
    WorkerCrashedError,
    WorkerError,
)
from flame_host.testing.cluster import FakeCluster
from flame_host.testing.engine_contract import Counter, EngineContract, add, fail
from flame_host.testing.services import BareServices, Caller

REAL = os.environ.get("FLAME_E2E_ENDPOINT", "")
_PATIENCE = 60.0


class TestFlameEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> FlameEngine:
        return FlameEngine()

    @pytest.fixture
    def endpoint(self, cluster: FakeCluster) -> str:
        return cluster.endpoint


@pytest.mark.skipif(not REAL, reason="FLAME_E2E_ENDPOINT is not set: no real cluster to try")
class TestRealCluster(EngineContract):
    @pytest.fixture
    def engine(self) -> FlameEngine:
        return FlameEngine()

    @pytest.fixture
    def endpoint(self) -> str:
        return REAL


@pytest.fixture
def connection(cluster: FakeCluster, services: BareServices) -> Iterator[Any]:
    connection = FlameEngine().connect(cluster.endpoint, services)
    yield connection
    connection.close()


@pytest.fixture
def services(tmp_path: Any) -> BareServices:
    return BareServices(tmp_path)


# ------------------------------------------------------------------------------------------------ what goes wrong


@pytest.mark.parametrize("endpoint", ["http://", "http://host:port", "http://host:1/path", "http://host:1?cash=x", "ftp://host:1"])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(ConfigError, match="no endpoint"):
        cluster_of(endpoint)


def test_a_cluster_that_does_not_answer_is_told_with_its_endpoint(services: BareServices) -> None:
    with pytest.raises(WorkerError, match=r"127\.0\.0\.1:1 cannot be reached"):
        FlameEngine().connect("http://127.0.0.1:1", services)


def test_a_template_that_is_not_registered_is_named(cluster: FakeCluster, services: BareServices) -> None:
    with pytest.raises(ConfigError, match="no application 'nobody'"):
        FlameEngine().connect(f"{cluster.endpoint}?template=nobody", services)


def test_a_host_that_cannot_enter_the_session_ends_every_call_with_its_reason(
    cluster: FakeCluster, connection: Any, services: BareServices
) -> None:
    from dataclasses import replace

    from flame_host.api import Application, PackageRef, Plan

    application = Application("broken", package=PackageRef("file:///nowhere/app.tar.gz", "0" * 64, 1, "tar.gz"), plan=Plan())
    connection.register_application(replace(application, description="its package is nowhere"))
    call = Caller(connection, services, add, application="broken")
    error = call(1, 2).exception(_PATIENCE)
    assert error is not None
    assert "nowhere/app.tar.gz" in str(error)
    with pytest.raises(type(error)):
        call(1, 2)
    call.session.close()
    connection.unregister_application("broken")
    assert not isinstance(error, ProvisionError) or error.stage


def test_streams_that_end_without_a_word_leave_nobody_waiting(cluster: FakeCluster, connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, add)
    assert call(1).result(_PATIENCE) == 1
    cluster.cut = 3
    assert [call(n).result(_PATIENCE) for n in range(3)] == [0, 1, 2]
    assert cluster.cut == 0
    call.session.close()


def _slowly(seconds: float, value: int) -> int:
    import time

    time.sleep(seconds)
    return value


def test_a_session_manager_that_comes_back_finds_its_callers_waiting(
    directory: Path, register: Callable[[FakeCluster], None], services: BareServices
) -> None:
    environment = {**os.environ, "FLAME_HOST_ROOT": str(directory / "root")}
    with FakeCluster(directory, environment=environment) as cluster:
        register(cluster)
        connection = FlameEngine().connect(cluster.endpoint, services)
        call = Caller(connection, services, _slowly)
        assert call(0.0, 1).result(_PATIENCE) == 1
        task = call(1.0, 2)
        while not cluster.made >= 2:
            pass
        cluster.stop_answering()
        cluster.answer_again()
        assert task.result(_PATIENCE) == 2
        call.session.close()
        connection.close()


def _exit(code: int) -> None:
    os._exit(code)


def test_a_worker_that_dies_costs_its_own_call_only(connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, _exit)
    assert isinstance(call(3).exception(_PATIENCE), WorkerCrashedError)
    call.session.close()


def test_a_call_that_takes_too_long_is_stopped_on_its_node(connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, _slowly)
    assert isinstance(call(60, 1, options=CallOptions(timeout=0.3)).exception(_PATIENCE), TaskTimeoutError)
    assert call(0.0, 2).result(_PATIENCE) == 2
    call.session.close()


def test_a_state_that_another_executor_made_anew_is_not_taken_for_the_old_one(
    cluster: FakeCluster, connection: Any, services: BareServices
) -> None:
    call = Caller(connection, services, Counter(), stateful=True)
    assert call(1, method="add").result(_PATIENCE) == 1
    cluster.lose_executors(call.session.session_id)
    assert isinstance(call(1, method="add").exception(_PATIENCE), StateLostError)
    with pytest.raises(StateLostError):
        call(1, method="add")
    call.session.close(wait=False)


# ------------------------------------------------------------------------------------------------ many calls in one task


def test_many_small_calls_go_together(cluster: FakeCluster, connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, add)
    call(0).result(_PATIENCE)
    before = cluster.made
    tasks = [call(number) for number in range(3000)]
    assert [task.result(_PATIENCE) for task in tasks] == list(range(3000))
    assert cluster.made - before < 300
    call.session.close()


def test_a_failure_among_many_is_its_own(connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, add)
    call(0).result(_PATIENCE)
    tasks = [call("x" if number % 10 == 3 else number) for number in range(200)]
    for number, task in enumerate(tasks):
        if number % 10 == 3:
            assert isinstance(task.exception(_PATIENCE), TypeError)
        else:
            assert task.result(_PATIENCE) == number
    call.session.close()


def test_what_a_task_prints_comes_with_its_result(connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, print)
    task = call("a word of the task")
    task.result(_PATIENCE)
    assert [(record.task, record.text) for record in services.logs if "a word" in record.text] == [(task.number, "a word of the task\n")]
    with pytest.raises(ValueError, match="on purpose"):
        Caller(connection, services, fail)().result(_PATIENCE)
    call.session.close()


async def _coroutine(value: int) -> int:
    import asyncio

    await asyncio.sleep(0)
    return value + 1


def test_a_coroutine_gives_its_value(connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, _coroutine)
    assert call(1).result(_PATIENCE) == 2
    call.session.close()


def test_a_call_that_was_not_sent_can_be_taken_back(connection: Any, services: BareServices) -> None:
    call = Caller(connection, services, _slowly, stateful=True)
    first, second = call(0.5, 1), call(0.0, 2)
    while not first.begins:
        pass
    taken = call.session.cancel(second)
    assert first.result(_PATIENCE) == 1
    if taken:
        assert not second.done()
    else:
        assert second.result(_PATIENCE) == 2
    call.session.close(wait=False)
