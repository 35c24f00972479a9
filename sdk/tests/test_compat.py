"""Sessions, requests, references and services, in the words of Flame."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import flamepy
import pytest
from flamepy import (
    ApplicationNotFoundError,
    ClosedError,
    ObjectNotFoundError,
    ObjectRef,
    RunnerContext,
    RunnerRequest,
    RunnerServiceKind,
    SessionNotFoundError,
    VersionConflictError,
    create_session,
)
from flamepy.agent import Agent
from flamepy.core import ApplicationAttributes
from flamepy.runpy import FlameRunpyService
from flamepy.service import ApplicationContext, FlameService, SessionContext, TaskContext, TaskOutput


class Calculator:
    def __init__(self) -> None:
        self.memory = 0

    def add(self, a: int, b: int = 0) -> int:
        self.memory += a + b
        return a + b

    def recall(self) -> int:
        return self.memory


@pytest.fixture(autouse=True)
def default_engine(engine: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FLAME_ENGINE", engine)
    yield
    flamepy.disconnect()


@pytest.mark.parametrize(
    "wrong",
    [{"method": 3}, {"args": (1,), "kwargs": {"b": 1}}, {"args": (1,), "input_object": 2}, {"args": "ab"}, {"kwargs": [1]}],
)
def test_a_request_that_contradicts_itself_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"method|only one of|args|kwargs"):
        RunnerRequest(**wrong)


def test_a_stateful_context_cannot_be_scaled() -> None:
    with pytest.raises(ValueError, match="one worker"):
        RunnerContext(Calculator(), kind=RunnerServiceKind.Stateful, autoscale=True)


def test_names_that_are_not_known_are_told() -> None:
    with pytest.raises(ApplicationNotFoundError):
        create_session("nowhere", RunnerContext(len))
    with pytest.raises(ApplicationNotFoundError, match="registered: flmrun"):
        flamepy.RunnerService("nowhere", len)
    with pytest.raises(SessionNotFoundError):
        flamepy.open_session("nowhere")
    with pytest.raises(SessionNotFoundError):
        flamepy.get_session("nowhere")
    with pytest.raises(TypeError, match="needs a RunnerContext"):
        create_session("flmrun", 3)
    assert flamepy.get_application("nowhere") is None


def test_a_closed_session_says_so() -> None:
    session = create_session("flmrun", RunnerContext(len))
    session.close()
    with pytest.raises(ClosedError):
        session.invoke(RunnerRequest(args=([],)))


def test_kinds_follow_from_the_execution_object() -> None:
    assert RunnerContext(len).kind is RunnerServiceKind.Stateless
    assert RunnerContext(Calculator).kind is RunnerServiceKind.Stateful
    assert RunnerContext(Calculator(), autoscale=True).kind is RunnerServiceKind.Stateless


def test_functions_classes_kwargs_and_input_objects_through_a_session() -> None:
    with create_session("flmrun", RunnerContext(lambda a=1, b=2: a + b)) as session:
        assert session.invoke(RunnerRequest()).get() == 3
        assert session.invoke(RunnerRequest(args=(5,))).get() == 7
        assert session.invoke(RunnerRequest(kwargs={"b": 5})).get() == 6
        assert session.invoke(RunnerRequest(input_object=10)).get() == 12
        assert session.run(RunnerRequest(args=[1, 1])).get() == 2
    with create_session("flmrun", RunnerContext(Calculator)) as session:
        for _ in range(3):
            session.invoke(RunnerRequest(method="add", args=(1,)))
        reference = session.invoke(RunnerRequest(method="recall"))
        assert flamepy.get_object(reference) == 3
        assert flamepy.open_session(session.id) is session
        assert session.succeeded == 4
        assert [info.session_id for info in flamepy.list_sessions()].count(session.id) == 1


def test_a_stored_object_can_be_an_input() -> None:
    stored = flamepy.put_object("flmrun/inputs", [1, 2, 3])
    with create_session("flmrun", RunnerContext(sum)) as session:
        assert session.invoke(RunnerRequest(input_object=stored)).get() == 6


def test_objects_have_versions_and_compare_and_set() -> None:
    ref = flamepy.put_object("app/session", "one")
    newer = flamepy.update_object(ref, "two", if_version=1)
    assert (ref.version, newer.version, flamepy.get_object(newer)) == (1, 2, "two")
    with pytest.raises(VersionConflictError):
        flamepy.update_object(ref, "three", if_version=1)
    assert flamepy.delete_objects("app/session") >= 1
    with pytest.raises(ObjectNotFoundError):
        flamepy.get_object(newer)
    with pytest.raises(ValueError, match="prefix"):
        flamepy.put_object("a/b/c", 1)


def test_a_single_object_is_freed_by_its_reference() -> None:
    ref, other = flamepy.put_object("app/session", "one"), flamepy.put_object("app/session", "other")
    ref.delete()
    ref.delete()
    with pytest.raises(ObjectNotFoundError):
        ref.get()
    assert other.get() == "other"


def test_a_reference_survives_encoding_and_other_bytes_are_refused() -> None:
    ref = flamepy.put_object("session-only", {"a": 1})
    assert ObjectRef.decode(ref.encode()) == ref
    assert ref.url.endswith(ref.key)
    with pytest.raises(ValueError, match="ObjectRef"):
        ObjectRef.decode(b"{}")


def test_applications_are_registered_listed_and_removed() -> None:
    flamepy.register_application("mine", ApplicationAttributes(command="x", description="of a test"))
    assert {"flmrun", "mine"} <= {application.name for application in flamepy.list_applications()}
    found = flamepy.get_application("mine")
    assert found is not None
    assert found.description == "of a test"
    flamepy.unregister_application("mine")
    assert flamepy.get_application("mine") is None


def test_a_package_that_stands_there_can_be_registered_by_its_url(tmp_path: Path, write: Callable[..., Path], engine: str) -> None:
    import tarfile

    with tarfile.open(tmp_path / "pkg.tar.gz", "w:gz") as archive:
        archive.add(write("standing_module.py", "VALUE = 42\n"), "standing_module.py")
    flamepy.register_application("standing", {"url": (tmp_path / "pkg.tar.gz").as_uri()})
    if engine == "inline":
        return

    def value() -> int:
        import standing_module  # type: ignore[import-not-found]

        return int(standing_module.VALUE)

    with create_session("standing", RunnerContext(value)) as session:
        assert session.invoke(RunnerRequest()).get() == 42
    flamepy.unregister_application("standing")


def test_an_agent_answers_and_remembers() -> None:
    class Echo:
        def __init__(self) -> None:
            self.heard: list[Any] = []

        def __call__(self, request: Any) -> int:
            self.heard.append(request)
            return len(self.heard)

    with Agent("flmrun", Echo()) as agent:
        assert [agent.invoke("a"), agent.invoke("b")] == [1, 2]


def test_the_runpy_service_answers_requests_with_references() -> None:
    service = FlameRunpyService()
    with pytest.raises(RuntimeError, match="no session"):
        service.on_task_invoke(TaskContext("1", "s", RunnerRequest()))
    with pytest.raises(ValueError, match="RunnerContext"):
        service.on_session_enter(SessionContext("s", ApplicationContext("flmrun"), 3))
    service.on_session_enter(SessionContext("s", ApplicationContext("flmrun"), RunnerContext(Calculator)))
    output = service.on_task_invoke(TaskContext("1", "s", RunnerRequest(method="add", args=(1, 2))))
    assert isinstance(output, TaskOutput)
    assert flamepy.get_object(output.data) == 3
    for request, message in ((RunnerRequest(method="nope"), "no method"), (RunnerRequest(), "cannot be called"), (3, "RunnerRequest")):
        with pytest.raises(ValueError, match=message):
            service.on_task_invoke(TaskContext("2", "s", request))
    service.on_session_leave()


def test_a_service_of_ones_own_needs_all_three_methods() -> None:
    class Half(FlameService):
        def on_session_leave(self) -> None: ...

    with pytest.raises(TypeError, match="abstract"):
        Half()  # type: ignore[abstract]


def test_every_name_of_the_surface_can_be_imported() -> None:
    for name in flamepy.__all__:
        assert getattr(flamepy, name) is not None
    for module in ("rl", "runner", "core", "cache", "runpy", "service", "agent"):
        for name in getattr(flamepy, module).__all__:
            assert hasattr(getattr(flamepy, module), name)
    with pytest.raises(AttributeError, match="no attribute 'nope'"):
        flamepy.nope  # type: ignore[attr-defined]  # noqa: B018
