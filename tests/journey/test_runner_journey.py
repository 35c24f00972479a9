"""Through the front door: a project, a Runner, services, futures. One suite for every engine."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest
from flamepy import Runner

from flame_host.api import (
    ApplicationExistsError,
    ClosedError,
    ConfigError,
    InstallError,
    NegotiationError,
    NotSerializableError,
    WorkerCrashedError,
)
from flame_host.testing.processes import descendants

ENGINES = ["inline", "local", "ray"]
pytestmark = pytest.mark.usefixtures("offline_host")


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.getfixturevalue("ray_endpoint") if request.param == "ray" else request.param)


@pytest.fixture(autouse=True)
def _nothing_is_left():
    yield
    assert descendants() == []
    assert [name for name in os.listdir("/dev/shm") if "flame" in name] == []


# ---------------------------------------------------------------------------------------------------- what users do


def test_a_function_is_called(engine: str, shapes: Path):
    from shapes.work import add

    with Runner("fn", engine=engine) as rr:
        service = rr.service(add)
        assert service(1, 3).get() == 4
        assert service(1, b=2).get() == 3
        assert [future.get() for future in [service(n, n) for n in range(200)]] == [2 * n for n in range(200)]


def test_a_class_is_instantiated_once_and_keeps_its_state(engine: str, shapes: Path):
    from shapes.work import Counter

    with Runner("cls", engine=engine) as rr:
        counter = rr.service(Counter)
        counter.add(1)
        counter.add(3)
        assert counter.get_counter().get() == 4


def test_an_instance_keeps_its_state_and_takes_a_future_as_argument(engine: str, shapes: Path):
    from shapes.work import Counter

    with Runner("obj", engine=engine) as rr:
        counter = rr.service(Counter(10))
        counter.add(1)
        counter.add(3)
        now = counter.get_counter()
        assert now.get() == 14
        counter.add(now)
        assert counter.get_counter().get() == 28


def test_futures_are_passed_on_at_any_depth(engine: str, shapes: Path):
    from shapes.work import add, total

    with Runner("chain", engine=engine) as rr:
        adder, summer = rr.service(add), rr.service(total)
        first = adder(1, 2)
        second = adder(first, b=first)
        assert second.get() == 6
        assert summer([first, second, 1]).get() == 10
        assert rr.service(lambda box: box["here"][0] + 1)({"here": [second]}).get() == 7


def test_large_data_passes_from_task_to_task_without_the_client(engine: str, shapes: Path):
    with Runner("big", engine=engine) as rr:
        data = rr.service(lambda n: bytearray(n))(8 << 20)
        assert rr.service(len)(data).get() == 8 << 20
        assert rr.service(len)(rr.put_object(bytearray(4 << 20))).get() == 4 << 20


def test_objects_are_put_and_got(engine: str, shapes: Path):
    from shapes.work import total

    with Runner("put", engine=engine) as rr:
        reference = rr.put_object([1, 2, 3])
        assert rr.get(reference) == [1, 2, 3]
        assert rr.service(total)(reference).get() == 6


def test_results_are_waited_for_and_selected(engine: str, shapes: Path):
    from shapes.work import add

    with Runner("wait", engine=engine) as rr:
        futures = [rr.service(add)(n) for n in range(5)]
        rr.wait(futures)
        assert rr.get(futures) == [0, 1, 2, 3, 4]
        assert {future.get() for future in rr.select(futures)} == {0, 1, 2, 3, 4}


def test_coroutines_are_awaited_and_generators_streamed(engine: str, shapes: Path):
    from shapes.work import count, later

    with Runner("async", engine=engine) as rr:

        async def main() -> int:
            return await rr.service(later)(7)

        assert asyncio.run(main()) == 7
        assert list(rr.service(count)(500)) == list(range(500))


def test_a_lambda_and_a_closure_travel(engine: str, shapes: Path):
    factor = 3
    with Runner("closure", engine=engine) as rr:
        assert rr.service(lambda x: x * factor)(5).get() == 15


# ---------------------------------------------------------------------------------------------------- what goes wrong


def test_a_failing_task_raises_its_own_exception_with_the_remote_line(engine: str, shapes: Path):
    from shapes.work import fail

    with Runner("fail", engine=engine) as rr:
        with pytest.raises(ValueError, match="no luck") as caught:
            rr.service(fail)("no luck").get()
    assert caught.value.code == 42
    lines = [(Path(entry.path).name, entry.name) for entry in caught.traceback]
    assert ("work.py", "fail") in lines
    assert not any(name in ("bootstrap.py", "channel.py") for name, _ in lines)


def test_a_result_that_cannot_travel_says_so(engine: str, shapes: Path):
    with Runner("lock", engine=engine) as rr:
        with pytest.raises(NotSerializableError, match="lock"):
            rr.service(lambda: __import__("threading").Lock())().get()


def test_an_object_that_cannot_be_pickled_is_named_by_its_attribute(engine: str, shapes: Path):
    import threading

    class Holder:
        def __init__(self) -> None:
            self.guard = threading.Lock()

        def use(self) -> None: ...

    with Runner("holder", engine=engine) as rr:
        with pytest.raises(NotSerializableError, match="guard"):
            rr.service(Holder()).use().get()


def test_a_name_in_use_is_refused(engine: str, shapes: Path):
    with Runner("twice", engine=engine):
        with pytest.raises(ApplicationExistsError, match="twice"):
            Runner("twice", engine=engine, fail_if_exists=True).open()


def test_use_after_close_is_refused(engine: str, shapes: Path):
    from shapes.work import add

    with Runner("closed", engine=engine) as rr:
        service = rr.service(add)
    with pytest.raises(ClosedError):
        service(1)
    with pytest.raises(ClosedError):
        rr.service(add)


def test_a_wanted_name_that_no_plugin_offers_is_refused_before_anything_is_packed(engine: str, shapes: Path):
    with pytest.raises(NegotiationError, match=r"archivers .*tar\.lz4"):
        Runner("wants", engine=engine, archivers=["tar.lz4"]).open()


def test_a_broken_pyproject_is_named_with_its_line(engine: str, shapes: Path):
    (shapes / "pyproject.toml").write_text("[project\nname = 1\n")
    with pytest.raises(ConfigError, match=r"pyproject\.toml"):
        Runner("broken", engine=engine).open()


def test_a_dependency_that_does_not_exist_fails_the_task_with_the_installers_words(shapes: Path):
    from shapes.work import add

    (shapes / "pyproject.toml").write_text('[project]\nname = "x"\nversion = "1"\ndependencies = ["no-such-package-of-ours"]\n')
    with Runner("missing", engine="local") as rr:
        with pytest.raises(InstallError, match="no-such-package-of-ours"):
            rr.service(add)(1).get(timeout=60)


def test_a_module_the_worker_lacks_is_named(shapes: Path):
    def needs() -> None:
        import no_such_module_at_all  # noqa: F401

    with Runner("module", engine="local") as rr:
        with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
            rr.service(needs)().get(timeout=60)


def test_a_crash_fails_its_task_and_the_service_goes_on(shapes: Path):
    with Runner("crash", engine="local") as rr:
        service = rr.service(lambda die: os._exit(7) if die else "alive")
        with pytest.raises(WorkerCrashedError, match="code 7"):
            service(True).get(timeout=60)
        assert service(False).get(timeout=60) == "alive"


# ---------------------------------------------------------------------------------------------------- environments


def test_the_task_runs_elsewhere_with_the_projects_own_dependency_and_files(shapes: Path):
    from shapes.work import dependency_version, pid, read_data

    with Runner("env", engine="local") as rr:
        assert rr.service(pid)().get() != os.getpid()
        assert rr.service(dependency_version)().get() == "1.0"
        assert rr.service(read_data)().get() == "hello from the package"
    with pytest.raises(ModuleNotFoundError):
        dependency_version()


def test_two_applications_with_conflicting_dependencies_run_at_the_same_time(shapes: Path, tmp_path: Path):
    from shapes.work import dependency_version

    other = tmp_path / "other"
    other.mkdir()
    (other / "pyproject.toml").write_text('[project]\nname = "other"\nversion = "1"\ndependencies = ["flametestdep==2.0"]\n')

    def version() -> str:
        import flametestdep

        return flametestdep.VERSION

    with Runner("one", engine="local") as one, Runner("two", engine="local", project=other) as two:
        first, second = one.service(dependency_version), two.service(version)
        futures = [(first(), second()) for _ in range(20)]
        assert {(a.get(), b.get()) for a, b in futures} == {("1.0", "2.0")}


def test_a_runner_is_used_inside_a_task(shapes: Path):
    def outer(n: int) -> int:
        from flamepy import Runner

        with Runner("inner", engine="local", package=False) as rr:
            return rr.service(lambda x: x + 1)(n).get()

    with Runner("outer", engine="local") as rr:
        assert rr.service(outer)(1).get(timeout=60) == 2


def test_a_runner_leaves_nothing_published(shapes: Path, offline_host: Path):
    from shapes.work import add

    with Runner("tidy", engine="local") as rr:
        rr.service(add)(1).get()
    assert [path for path in offline_host.glob("packages/**/*tidy*") if path.is_file()] == []


# ---------------------------------------------------------------------------------------------------- combinations


@pytest.mark.parametrize("archiver", ["tar.gz", "tar.xz", "zip"])
@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize("serializer", ["cloudpickle", "msgpack"])
def test_the_journey_is_the_same_for_every_combination_of_plugins(shapes: Path, archiver: str, installer: str, serializer: str):
    from shapes.work import Counter, add, dependency_version, fail

    wants = {"archivers": [archiver], "installers": [installer], "serializers": [serializer]}
    with Runner(f"combo-{archiver}-{installer}-{serializer}", engine="local", **wants) as rr:
        assert (rr.plan.archiver, rr.plan.installer, rr.plan.serializer.partition("/")[0]) == (archiver, installer, serializer)
        adder = rr.service(add)
        assert adder(adder(1, 2), b=4).get(timeout=120) == 7
        assert rr.service(dependency_version)().get() == "1.0"
        counter = rr.service(Counter)
        counter.add(1)
        counter.add(3)
        assert counter.get_counter().get() == 4
        with pytest.raises(Exception, match="no luck"):
            rr.service(fail)("no luck").get()
