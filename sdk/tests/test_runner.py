"""The documents' test list for the Runner, and what else its users rely on; on every engine of ours."""

from __future__ import annotations

import asyncio
import builtins
import concurrent.futures
import functools
import os
import pickle
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flamepy import (
    ApplicationExistsError,
    ClosedError,
    ConfigError,
    NegotiationError,
    NotSerializableError,
    ObjectFuture,
    ObjectRef,
    RemoteError,
    Runner,
    RunnerService,
    TaskExitError,
    WorkerCrashedError,
    get_object,
    list_applications,
)


def add(a: int, b: int = 10) -> int:
    return a + b


class Counter:
    """Counts."""

    def __init__(self, initial: int = 0) -> None:
        self._count = initial

    def add(self, a: int) -> int:
        """Add to it."""
        self._count += a
        return self._count

    def get_counter(self) -> int:
        return self._count

    @property
    def dangerous(self) -> int:
        raise AssertionError("a property must not be read")

    @staticmethod
    def doubled(x: int) -> int:
        return 2 * x

    @classmethod
    def name(cls) -> str:
        return cls.__name__


class Odd(Exception):
    def __init__(self, code: int, *, extra: str) -> None:
        super().__init__(f"odd {code}")
        self.code = code
        self.extra = extra


def fail(kind: str) -> None:
    if kind == "custom":
        try:
            {}["missing"]
        except KeyError as error:
            problem = ValueError("wrapped")
            problem.where = "here"  # type: ignore[attr-defined]
            problem.__notes__ = ["a note"]  # type: ignore[attr-defined]
            raise problem from error
    if kind == "constructor":
        raise Odd(3, extra="x")
    if kind == "exit":
        raise SystemExit(4)
    raise getattr(builtins, kind)(kind)


def lock() -> dict[str, Any]:
    return {"a": [threading.Lock()]}


# ---------------------------------------------------------------------- what goes wrong


def test_an_application_name_that_cannot_be_one_is_refused() -> None:
    for name in ("", "a/b", "../up", "x" * 200, None):
        with pytest.raises(ConfigError, match="cannot be the name"):
            Runner(name)  # type: ignore[arg-type]


def test_two_open_runners_of_one_name_clash_and_the_first_goes_on(runner: Runner, engine: str) -> None:
    with pytest.raises(ApplicationExistsError, match="open in this program"):
        Runner("test", engine=engine).open()
    assert runner.service(add)(1, 2).get() == 3


def test_an_engine_that_is_not_there_is_named_with_what_to_install() -> None:
    with pytest.raises(Exception, match="no engine named 'nowhere'"):
        Runner("x", engine="nowhere://x").open()


def test_every_wish_that_cannot_be_met_is_told_at_once_with_where_it_was_made(write: Callable[..., Path]) -> None:
    write("pyproject.toml", '[tool.flame]\narchivers = ["tar.zst"]\n')
    with pytest.raises(NegotiationError) as caught:
        Runner("x", engine="inline", serializers=["avro"]).open()
    assert "pyproject.toml [tool.flame] archivers" in str(caught.value)
    assert "Runner(…) serializers" in str(caught.value)
    assert len(caught.value.problems) == 2


def test_nothing_is_left_when_opening_fails(host_root: Path, write: Callable[..., Path]) -> None:
    write("pyproject.toml", '[tool.flame]\narchivers = ["tar.zst"]\n')
    with pytest.raises(NegotiationError):
        Runner("gone", engine="inline").open()
    write("pyproject.toml", "")
    with Runner("gone", engine="inline") as rr:
        assert rr.service(add)(1).get() == 11


def test_the_home_directory_is_not_a_project() -> None:
    with pytest.raises(ConfigError, match="is not a project"):
        Runner("x", engine="inline", project=Path.home()).open()


def test_use_after_close_is_told(engine: str) -> None:
    with Runner("x", engine=engine) as rr:
        service = rr.service(add)
    for use in (lambda: rr.service(add), lambda: service(1), lambda: rr.put_object(1), rr.open):
        with pytest.raises(ClosedError):
            use()
    rr.close()
    service.close()


def test_an_object_that_cannot_travel_is_refused_where_it_is_passed(runner: Runner) -> None:
    with pytest.raises(NotSerializableError, match="lock"):
        runner.service(add)(threading.Lock())
    counter = Counter()
    counter.gate = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(NotSerializableError, match=r"self\.gate"):
        runner.service(counter)


def test_a_result_that_cannot_travel_names_the_part(runner: Runner) -> None:
    with pytest.raises(NotSerializableError, match="result cannot be serialized") as caught:
        runner.service(lock)().get()
    assert caught.value.path == "value['a'][0]"


def test_an_exception_keeps_type_attributes_notes_and_cause(runner: Runner) -> None:
    with pytest.raises(ValueError, match="wrapped") as caught:
        runner.service(fail)("custom").get()
    assert caught.value.where == "here"  # type: ignore[attr-defined]
    assert caught.value.__notes__ == ["a note"]  # type: ignore[attr-defined]
    assert isinstance(caught.value.__cause__, KeyError)
    frames = [entry.name for entry in caught.traceback if entry.name != "get" or sys.version_info >= (3, 11)]
    assert frames == ["test_an_exception_keeps_type_attributes_notes_and_cause", "fail"]


def test_an_exception_whose_constructor_wants_more_than_it_keeps_arrives(runner: Runner) -> None:
    with pytest.raises((Odd, RemoteError), match="odd 3"):
        runner.service(fail)("constructor").get()


@pytest.mark.parametrize("kind", ["StopIteration", "KeyboardInterrupt", "GeneratorExit", "MemoryError"])
def test_unusual_exceptions_of_a_task_do_not_disturb_the_program(local: Runner, kind: str) -> None:
    service = local.service(fail)
    future = service(kind)
    assert future.wait(30)
    assert type(future.exception()).__name__ in (kind, "RemoteError")
    assert local.service(add)(1).get(30) == 11


def test_sys_exit_in_a_task_is_an_error_of_that_task(runner: Runner) -> None:
    with pytest.raises(TaskExitError) as caught:
        runner.service(fail)("exit").get()
    assert caught.value.code == "4"


def test_a_failed_argument_fails_the_call_with_the_same_error(runner: Runner) -> None:
    failed = runner.service(fail)("ValueError")
    second = runner.service(add)(failed, 1)
    third = runner.service(add)([second], 1)
    with pytest.raises(ValueError, match="ValueError"):
        third.get()
    assert third.exception() is failed.exception()


def test_a_method_that_is_not_there_is_told_with_the_nearest(runner: Runner) -> None:
    service = runner.service(Counter)
    with pytest.raises(AttributeError, match="did you mean 'get_counter'"):
        service.get_countr()
    with pytest.raises(TypeError, match="cannot be called itself; its methods: add"):
        service(1)


def test_methods_named_like_those_of_the_service_are_reported_and_reachable(runner: Runner) -> None:
    class Door:
        def close(self) -> str:
            return "closed"

        def map(self) -> str:
            return "a map"

    with pytest.warns(UserWarning, match=r"close, map.*svc\.methods\.close"):
        door = runner.service(Door())
    assert door.methods.close().get() == "closed"
    assert door.call("map").get() == "a map"
    door.close()
    assert "closed" in repr(door)


def test_a_module_that_is_missing_in_the_worker_is_told_with_what_to_do(
    write: Callable[..., Path], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("only_here.py", "def work(): return 1\n")
    write("uses_it.py", "import only_here\nwork = only_here.work\n\ndef call(): return work()\n")
    write(".flameignore", "only_here.py\n")
    monkeypatch.syspath_prepend(str(project))
    import uses_it  # type: ignore[import-not-found]

    with Runner("missing", engine="local") as rr:
        with pytest.raises(ModuleNotFoundError, match="only_here") as caught:
            rr.service(uses_it.call)().get()
    assert "add what provides 'only_here'" in caught.value.__notes__[0]


def test_without_pickle_code_goes_by_its_import_path_and_a_lambda_cannot(
    engine: str, write: Callable[..., Path], project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flame_serialize_msgpack")
    write("plain_code.py", "def add(a, b=1): return a + b\ndef boom(): raise ValueError('told')\n")
    monkeypatch.syspath_prepend(str(project))
    import plain_code  # type: ignore[import-not-found]

    with Runner("plain", engine=engine, policy={"pickle": "deny"}) as rr:
        assert rr.plan.serializers == ("msgpack/1",)
        service = rr.service(plain_code.add)
        assert service(service(1, 2), 4).get() == 7
        with pytest.raises(ValueError, match="told"):
            rr.service(plain_code.boom)().get()
        with pytest.raises(NotSerializableError, match="lambda"):
            rr.service(lambda x: x)
        with pytest.raises(NotSerializableError, match="pass an instance"):
            rr.service(Counter, args=(1,))


class Fragile:
    def __init__(self) -> None:
        self.count = 0

    def add(self, amount: int) -> int:
        self.count += amount
        return self.count

    def end(self) -> None:
        os._exit(3)


def test_a_service_with_checkpoints_survives_its_worker(local: Runner) -> None:
    service = local.service(Fragile, checkpoint=1)
    assert [service.add(2).get() for _ in range(3)] == [2, 4, 6]
    with pytest.raises(WorkerCrashedError):
        service.end().get()
    assert service.add(2).get() == 8


def test_a_service_without_a_state_takes_no_checkpoints(runner: Runner) -> None:
    with pytest.raises(ConfigError, match="stateful=True"):
        runner.service(add, checkpoint=1)


# ---------------------------------------------------------------------- the documents' list


def test_runner_context_manager_registers_and_cleans_up(engine: str, tmp_path: Path) -> None:
    with Runner("life", engine=engine, storage=(tmp_path / "storage").as_uri()) as rr:
        package = rr.application.package
        assert package is not None
        published = Path(package.url.removeprefix("file://"))
        assert published.is_file()
        assert published.parent == tmp_path / "storage"
        assert {"life", "flmrun"} <= {application.name for application in list_applications()}
    assert not published.exists()
    with Runner("life", engine=engine):
        pass


def test_without_a_storage_the_package_stays_for_other_programs_that_use_it(engine: str) -> None:
    with Runner("life", engine=engine) as rr:
        assert rr.application.package is not None
        package = Path(rr.application.package.url.removeprefix("file://"))
    with Runner("life", engine=engine) as rr:
        assert rr.service(add)(1, 3).get() == 4
    assert package.is_file()


def test_runner_cleans_up_when_the_block_raises(engine: str, tmp_path: Path) -> None:
    def leave() -> None:
        with Runner("life", engine=engine, storage=(tmp_path / "storage").as_uri()) as rr:
            seen.append(Path(rr.application.package.url.removeprefix("file://")))  # type: ignore[union-attr]
            rr.service(add)(1)
            raise LookupError

    seen: list[Path] = []
    with pytest.raises(LookupError):
        leave()
    assert not seen[0].exists()


def test_runner_without_with_opens_at_first_use(engine: str) -> None:
    rr = Runner("lazy", engine=engine)
    assert rr.service(add)(1, 3).get() == 4
    rr.close()


def test_a_runner_that_is_never_closed_leaves_nothing_when_the_program_ends(engine: str, write: Callable[..., Path], project: Path) -> None:
    store = project.parent / "store"
    write(
        "main.py",
        f"from flamepy import Runner\nrr = Runner('left', storage={store.as_uri()!r})\nprint(rr.service(abs)(-1).get())\n",
    )
    done = subprocess.run(
        [sys.executable, "main.py"], env={**os.environ, "FLAME_ENGINE": engine}, capture_output=True, text=True, timeout=30
    )
    assert (done.stdout, done.stderr, done.returncode) == ("1\n", "", 0)
    assert list(store.iterdir()) == []


def test_runner_with_function_class_and_instance(runner: Runner) -> None:
    assert runner.service(add)(1, 3).get() == 4
    counter = runner.service(Counter)
    counter.add(1)
    counter.add(3)
    assert counter.get_counter().get() == 4
    ten = runner.service(Counter(10))
    ten.add(1)
    ten.add(3)
    result = ten.get_counter()
    assert result.get() == 14
    ten.add(result)
    assert ten.get_counter().get() == 28


def test_runner_with_kwargs_defaults_and_both(runner: Runner) -> None:
    service = runner.service(add)
    assert [service(1).get(), service(a=1, b=2).get(), service(1, b=5).get()] == [11, 3, 6]


def test_futures_and_references_stand_for_their_values_at_any_depth(runner: Runner) -> None:
    def total(values: list[int], more: dict[str, list[int]]) -> int:
        return sum(values) + sum(more["x"])

    one = runner.service(add)(0, 1)
    stored = runner.put_object(100)
    assert runner.service(total)([one, 1, one.ref()], more={"x": [stored, one]}).get() == 104


def test_a_call_that_waits_for_its_argument_holds_back_later_calls_of_a_stateful_service(local: Runner) -> None:
    def slow(x: int) -> int:
        time.sleep(0.3)
        return x

    counter = local.service(Counter)
    counter.add(local.service(slow)(5))
    futures = [counter.get_counter(), counter.add(1)]
    assert local.get(futures) == [5, 6]


def test_object_future_ref_and_get_object(runner: Runner) -> None:
    future = runner.service(add)(1, 1)
    ref = future.ref()
    assert isinstance(ref, ObjectRef)
    assert ref == future.ref()
    assert (get_object(ref), ref.get(), ref.version) == (2, 2, 1)
    assert ref.key.startswith("test/")
    assert ObjectRef.decode(ref.encode()) == ref


def test_runner_get_ref_wait_select(runner: Runner) -> None:
    service = runner.service(add)
    futures = [service(i, i) for i in range(10)]
    assert runner.wait(futures, timeout=30)
    assert runner.get(futures) == [2 * i for i in range(10)]
    assert [get_object(ref) for ref in runner.ref(futures[:3])] == [0, 2, 4]
    assert {future.get() for future in runner.select(futures)} == set(range(0, 20, 2))
    with pytest.raises(TypeError, match="expected futures"):
        runner.get([1])  # type: ignore[list-item]


def test_service_close_is_idempotent_and_runs_what_was_asked(runner: Runner) -> None:
    service = runner.service(add)
    future = service(1, 1)
    service.close()
    service.close()
    assert future.get() == 2


def test_service_by_the_name_of_an_application(runner: Runner) -> None:
    service: RunnerService[Any, Any] = RunnerService("test", add)
    assert service(2, 2).get() == 4
    service.close()


# ---------------------------------------------------------------------- what else can be served


def test_lambdas_builtins_partials_and_callable_objects(runner: Runner) -> None:
    class Adder:
        def __init__(self, n: int) -> None:
            self.n = n

        def __call__(self, x: int) -> int:
            self.n += x
            return self.n

    assert runner.service(lambda x: x * 3)(2).get() == 6
    assert runner.service(len)([1, 2]).get() == 2
    assert runner.service(functools.partial(add, 1))(b=1).get() == 2
    assert runner.service(Counter(3).add)(1).get() == 4
    adder = runner.service(Adder(1))
    adder(1)
    assert adder(1).get() == 3


def test_constructor_arguments_static_and_class_methods(runner: Runner) -> None:
    counter = runner.service(Counter, args=(5,))
    assert [counter.get_counter().get(), counter.doubled(4).get(), counter.name().get()] == [5, 8, "Counter"]
    assert counter.add.__doc__ == "Add to it."


def test_coroutine_functions_and_generators(runner: Runner) -> None:
    async def later(x: int) -> int:
        await asyncio.sleep(0)
        return x + 1

    def count(n: int) -> Iterator[int]:
        yield from range(n)

    assert runner.service(later)(1).get() == 2
    assert list(runner.service(count)(200)) == list(range(200))
    assert list(runner.service(count)(3).get()) == [0, 1, 2]


def test_a_generator_that_fails_gives_its_items_first(local: Runner) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise ValueError("then this")

    items = iter(local.service(broken)())
    assert next(items) == 1
    with pytest.raises(ValueError, match="then this"):
        next(items)


def test_local_calls_the_object_here(runner: Runner) -> None:
    def where() -> int:
        return os.getpid()

    service = runner.service(where)
    assert service.local() == os.getpid()
    assert runner.service(Counter(2)).add.local(2) == 4


def test_options_do_not_change_the_service(runner: Runner) -> None:
    service = runner.service(add)
    assert service.options(timeout=30, retries=0, name="sum")(1, 1).get() == 2
    assert service(1, 1).options is None


def test_submit_and_executor_work_like_the_standard_librarys(runner: Runner) -> None:
    assert runner.submit(add, 1, b=1).get() == 2
    with runner.executor() as executor:
        assert list(executor.map(add, range(5), range(5))) == [0, 2, 4, 6, 8]
        done, _ = concurrent.futures.wait([executor.submit(add, i) for i in range(5)])
        assert len(done) == 5
    with pytest.raises(RuntimeError):
        executor.submit(add, 1)
    assert runner.submit(add, 1).get() == 11


def test_an_asyncio_program_can_await_and_use_it_as_its_executor(runner: Runner) -> None:
    async def main() -> list[int]:
        service = runner.service(add)
        loop = asyncio.get_running_loop()
        return [await service(1, 1), *await asyncio.gather(service(2), service(3)), await loop.run_in_executor(runner.executor(), add, 5)]

    assert asyncio.run(main()) == [2, 12, 13, 15]


def test_reprs_say_where_code_runs(runner: Runner, engine: str) -> None:
    service = runner.service(Counter)
    assert f"on {engine}:" in repr(service)
    assert "stateful" in repr(service)
    assert "Runner 'test' (open)" in repr(runner)
    for shown in (runner._repr_html_(), service._repr_html_()):
        assert shown.startswith("<table>")
    assert "add" in dir(service)


class Block:
    """Stands for an array: its bytes travel out of band."""

    def __init__(self, content: bytearray) -> None:
        self.content = content

    def __reduce_ex__(self, protocol: Any) -> Any:
        return bytes, (pickle.PickleBuffer(self.content),)


def test_large_buffers_travel_and_later_changes_do_not(runner: Runner) -> None:
    def total(content: bytes, _: int = 0) -> int:
        return sum(content[::1000])

    def hold(x: int) -> int:
        time.sleep(0.1)
        return x

    block = Block(bytearray(b"\x01" * 1_000_000))
    first = runner.service(total)(block)
    waiting = runner.service(total)(block, runner.service(hold)(1))
    block.content[:] = bytes(1_000_000)
    assert (first.get(), waiting.get()) == (1000, 1000)


def test_modules_a_worker_cannot_import_travel_by_value(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, local: Runner) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "tool_of_mine.py").write_text("import part_of_mine\ndef work(x): return part_of_mine.FACTOR * part_of_mine.more(x)\n")
    (elsewhere / "part_of_mine.py").write_text("FACTOR = 2\ndef more(x): return x + 1\n")
    monkeypatch.syspath_prepend(str(elsewhere))
    import tool_of_mine  # type: ignore[import-not-found]

    assert local.service(tool_of_mine.work)(1).get() == 4


def test_a_module_of_the_project_is_imported_from_the_package(
    write: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, project: Path
) -> None:
    write("src/my_package_of_test/__init__.py", "def where(): return __file__\n")
    monkeypatch.syspath_prepend(str(project / "src"))
    import my_package_of_test  # type: ignore[import-not-found]

    with Runner("packed", engine="local") as rr:
        there = rr.service(my_package_of_test.where)().get()
    assert there.endswith("my_package_of_test/__init__.py")
    assert not there.startswith(str(project))


def test_no_warning_is_given_in_ordinary_use(engine: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with Runner("quiet", engine=engine) as rr:
            assert isinstance(rr.service(add)(1), ObjectFuture)


def test_workers_of_another_python_are_not_sent_pickles(project: Path) -> None:
    """Code pickled by one minor version crashes another."""
    other = f"3.{sys.version_info.minor + 1}"
    with Runner("other", engine="local", python_version=other) as rr:
        assert rr.plan.serializers == ("msgpack/1",)
    with pytest.raises(NegotiationError, match="needs the same Python on both sides"):
        Runner("other", engine="local", python_version=other, serializers=["cloudpickle"]).open()
    with Runner("other", engine="inline", python_version=other) as rr:  # runs here, whatever is asked for
        assert rr.plan.serializer == "cloudpickle/1"
