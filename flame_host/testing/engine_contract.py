"""What every engine must do. Inherit, and say which, and where::

class TestMyEngine(EngineContract):
    @pytest.fixture
    def engine(self): return MyEngine()

    @pytest.fixture
    def endpoint(self): return "mine://somewhere"
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_host.api import (
    Application,
    ApplicationExistsError,
    Connection,
    Engine,
    FlameError,
    SessionNotFoundError,
    SessionState,
)
from flame_host.testing.called import Counter, add, fail, items
from flame_host.testing.services import BareServices, Caller

__all__ = ["EngineContract"]

_PATIENCE = 60.0


class EngineContract:
    """The contract of `flame_host.api.Engine`, `Connection` and `Session`."""

    @pytest.fixture
    def engine(self) -> Engine:
        """The engine under test."""
        raise NotImplementedError("override this fixture to return your engine")

    @pytest.fixture
    def endpoint(self) -> str:
        """Where to connect; without applications and sessions."""
        raise NotImplementedError("override this fixture to return an endpoint")

    @pytest.fixture
    def services(self, tmp_path: Path) -> BareServices:
        return BareServices(tmp_path)

    @pytest.fixture
    def connection(self, engine: Engine, endpoint: str, services: BareServices) -> Iterator[Connection]:
        connection = engine.connect(endpoint, services)
        yield connection
        connection.close()

    def test_a_session_that_does_not_exist_is_not_found(self, connection: Connection) -> None:
        with pytest.raises(SessionNotFoundError):
            connection.get_session("no-such-session")

    def test_an_application_is_registered_once(self, connection: Connection) -> None:
        connection.register_application(Application("contract"))
        with pytest.raises(ApplicationExistsError):
            connection.register_application(Application("contract"))
        assert [application.name for application in connection.list_applications()].count("contract") == 1
        connection.unregister_application("contract")
        assert connection.get_application("contract") is None

    def test_an_exception_of_the_task_arrives(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, fail)
        with pytest.raises(ValueError, match="on purpose"):
            call().result(_PATIENCE)
        call.session.close()

    def test_a_session_goes_on_after_a_failure(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, add)
        assert call("x").exception(_PATIENCE) is not None
        assert call(1, 2).result(_PATIENCE) == 3
        call.session.close()

    def test_a_closed_session_takes_no_calls(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, add)
        call.session.close()
        call.session.close()
        with pytest.raises(FlameError):
            call(1).result(_PATIENCE)

    def test_it_keeps_the_protocol(self, engine: Engine, endpoint: str, connection: Connection) -> None:
        assert isinstance(engine, Engine)
        assert endpoint.partition(":")[0] in engine.schemes
        assert connection.capabilities().of("serializers")

    def test_every_call_gets_its_own_answer(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, add)
        tasks = [call(number, b=1) for number in range(50)]
        assert [task.result(_PATIENCE) for task in tasks] == list(range(1, 51))
        call.session.close()

    def test_every_task_is_begun_before_it_ends(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, add)
        task = call(1)
        task.result(_PATIENCE)
        assert task.begins == 1
        call.session.close()

    def test_a_stateful_session_keeps_state_and_order(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, Counter(), stateful=True)
        tasks = [call(1, method="add") for _ in range(20)]
        assert [task.result(_PATIENCE) for task in tasks] == list(range(1, 21))
        call.session.close()

    def test_a_session_is_listed_and_counts_its_tasks(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, add)
        call(1).result(_PATIENCE)
        assert call("x").exception(_PATIENCE) is not None
        info = call.session.info()
        assert (info.state, info.succeeded, info.failed) == (SessionState.OPEN, 1, 1)
        assert call.session.session_id in [info.session_id for info in connection.list_sessions()]
        call.session.close()

    @pytest.mark.parametrize("count", [0, 5, 40])
    def test_a_generator_opens_a_stream_and_gives_its_items(self, connection: Connection, services: BareServices, count: int) -> None:
        call = Caller(connection, services, items)
        task = call(count)
        assert task.result(_PATIENCE) is None
        assert task.is_stream
        assert task.items == list(range(count))
        call.session.close()

    def test_a_stream_goes_on_when_its_items_are_taken_however_often_that_is_said(
        self, connection: Connection, services: BareServices
    ) -> None:
        call = Caller(connection, services, items)
        task = call(300)
        while not task.done():
            call.session.grant(task, len(task.items))
            call.session.grant(task, max(0, len(task.items) - 7))  # late, and less than was said already
            call.session.drive(task, task.done, 0.01)
        assert task.items == list(range(300))
        call.session.close()

    def test_driving_ends_when_it_is_enough(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, add)
        task = call(1)
        call.session.drive(task, lambda: True, None)
        assert task.result(_PATIENCE) == 1
        call.session.close()

    def test_a_session_that_is_closed_without_waiting_ends_every_task(self, connection: Connection, services: BareServices) -> None:
        call = Caller(connection, services, add)
        tasks = [call(number) for number in range(200)]
        call.session.close(wait=False)
        for task in tasks:
            assert task.exception(_PATIENCE) is None or isinstance(task.exception(), FlameError)

    def test_closing_the_connection_twice_is_fine(self, engine: Engine, endpoint: str, services: BareServices) -> None:
        connection = engine.connect(endpoint, services)
        connection.close()
        connection.close()
