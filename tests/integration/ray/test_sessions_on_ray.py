"""What the engine contract does not ask: ends of tasks, output, order among long and short, large values, a lost actor's successor."""

from __future__ import annotations

import pickle
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError
from pathlib import Path

import cloudpickle
import pytest

from flame_host.api import CallOptions, Connection, TaskTimeoutError
from flame_host.testing.processes import eventually
from flame_host.testing.services import BareServices, Caller

pytestmark = pytest.mark.timeout(300)
cloudpickle.register_pickle_by_value(sys.modules[__name__])  # nodes do not have this file
_PATIENCE = 120.0


@pytest.fixture
def services(tmp_path: Path) -> BareServices:
    return BareServices(tmp_path)


@pytest.fixture
def connection(ray_endpoint: str, services: BareServices) -> Iterator[Connection]:
    from flame_engine_ray.connection import RayConnection

    connection = RayConnection(ray_endpoint, services)
    yield connection
    connection.close()


def test_tasks_are_cancelled_stopped_at_their_limit_and_killed(connection: Connection, services: BareServices):
    def sleep(seconds: float, stubborn: bool = False) -> str:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                time.sleep(0.05)
            except BaseException:
                if not stubborn:
                    raise
        return "slept"

    call = Caller(connection, services, sleep, max_instances=1)
    assert call(0).result(_PATIENCE) == "slept"
    assert isinstance(call(600, options=CallOptions(timeout=0.5)).exception(_PATIENCE), TaskTimeoutError)
    running = call(600)
    time.sleep(1)
    call.session.cancel(running)
    assert running.exception(_PATIENCE) is not None
    stubborn = call(600, stubborn=True)
    time.sleep(1)
    call.session.cancel(stubborn, force=True)
    assert isinstance(stubborn.exception(_PATIENCE), CancelledError)
    assert call(0).result(_PATIENCE) == "slept"
    call.session.close()


def test_a_short_task_does_not_wait_behind_a_long_one(connection: Connection, services: BareServices):
    call = Caller(connection, services, time.sleep, max_instances=2, warmup=2)
    [task.result(_PATIENCE) for task in [call(0) for _ in range(200)]]  # so that windows are wide
    long = call(8)
    short = [call(0) for _ in range(500)]
    assert [task.result(_PATIENCE) for task in short] == [None] * 500
    assert not long.done()
    long.result(_PATIENCE)
    call.session.close()


def test_output_comes_back_with_the_number_of_its_task(connection: Connection, services: BareServices):
    def say(word: str) -> None:
        print(word)

    call = Caller(connection, services, say, max_instances=1)
    tasks = [call(word) for word in ("one", "two")]
    [task.result(_PATIENCE) for task in tasks]
    assert eventually(lambda: {"one", "two"} <= {record.text.strip() for record in services.logs}, 30)
    assert {record.text.strip(): record.task for record in services.logs if record.text.strip() in ("one", "two")} == {
        "one": tasks[0].number,
        "two": tasks[1].number,
    }
    call.session.close()


def test_large_values_travel_as_references_and_outlive_their_executor(connection: Connection, services: BareServices):
    from flame_engine_ray.segments import RaySegment

    from flame_host.api import Payload

    class Maker:
        def make(self, size: int) -> pickle.PickleBuffer:
            return pickle.PickleBuffer(b"x" * size)

        def look(self, value: pickle.PickleBuffer) -> tuple[int, int]:
            return len(memoryview(value)), memoryview(value)[-1]

    class Raw:
        """A task that keeps what it is given as it comes."""

        frame = options = None
        number = attempts = 0

        def __init__(self) -> None:
            self.ended: list[object] = []

        def begin(self) -> bool:
            return True

        def succeed(self, data: bytes, buffers: list[object]) -> None:
            self.ended.append(Payload("cloudpickle/1", data, tuple(buffers)))

        def fail(self, error: BaseException) -> None:
            self.ended.append(error)

        fail_remotely = fail

        def done(self) -> bool:
            return bool(self.ended)

    maker = Caller(connection, services, Maker(), stateful=True)
    made = Raw()
    maker.session.submit(made, "make", maker.serializer.dumps(((3 << 20,), {})))
    assert eventually(made.done, _PATIENCE)
    payload = made.ended[0]
    assert isinstance(payload, Payload)
    large = [part for part in (payload.data, *payload.buffers) if isinstance(part, RaySegment)]
    assert [part.size >= 3 << 20 for part in large] == [True]
    maker.session.close()
    other = Caller(connection, services, Maker(), stateful=True)
    reader = Raw()
    data = other.serializer.dumps(((payload,), {}), reference=lambda value: 0 if value is payload else None)
    other.session.submit(reader, "look", data, (), (payload,))
    assert eventually(reader.done, _PATIENCE)
    answer = reader.ended[0]
    assert isinstance(answer, Payload)
    assert other.serializer.loads(answer.data) == (3 << 20, ord("x"))
    other.session.close()
