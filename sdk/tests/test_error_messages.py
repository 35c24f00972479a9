"""Forty mistakes, and what is said about each: what happened, and the line that would have been right."""

from __future__ import annotations

import bdb
import concurrent.futures
import pickle
import sys
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flamepy import (
    ClosedError,
    ConfigError,
    NegotiationError,
    NotSerializableError,
    Runner,
    TaskExitError,
    TaskTimeoutError,
    WorkerCrashedError,
)

from flame_host.api import FlameError, InstallError, PluginError, WorkerError

LOCK = threading.Lock()


def add(a: int, b: int = 1) -> int:
    return a + b


def guarded(a: int) -> int:
    with LOCK:
        return a


def lock(_: int) -> Any:
    return threading.Lock()


def many_bytes(count: int) -> int:
    return len(bytearray(count))


def stop_here(_: int) -> None:
    breakpoint()


def ask(_: int) -> str:
    return input("name? ")


def needs_what_is_not_there(_: int) -> None:
    import a_module_that_is_not_there  # noqa: F401


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, n: int) -> int:
        self.value += n
        return self.value


def opened(**keywords: Any) -> None:
    with Runner("mistakes", **{"package": False, "engine": "inline", **keywords}):
        pass


def served(thing: Any, use: Callable[[Any], object] = lambda svc: svc(1).get(), engine: str = "inline", **options: Any) -> object:
    with Runner("mistakes", package=False, engine=engine) as rr:
        return use(rr.service(thing, **options))


def after_close() -> None:
    with Runner("mistakes", package=False, engine="inline") as rr:
        svc = rr.service(add)
    svc(1)


def twice() -> None:
    with Runner("mistakes", package=False, engine="inline"):
        opened()


def pickled() -> None:
    served(add, lambda svc: pickle.dumps(svc(1)))


MISTAKES: list[tuple[str, Callable[[], object], type[BaseException], tuple[str, ...]]] = [
    ("dependencies as a string", lambda: opened(dependencies="pandas"), ConfigError, ("is one string", "dependencies=['pandas']")),
    ("a dependency that is no string", lambda: opened(dependencies=[3]), ConfigError, ("3, an int",)),
    ("a version pin with one =", lambda: opened(dependencies=["numpy=1.2"]), ConfigError, ("no requirement", '"numpy==1.2"')),
    ("an engine written wrongly", lambda: opened(engine="locl"), PluginError, ("no engine named 'locl'", "did you mean 'local'?")),
    (
        "a cluster that does not answer",
        lambda: opened(engine="http://127.0.0.1:1", storage="file:///tmp/x"),
        WorkerError,
        ("the cluster http://127.0.0.1:1 cannot be reached", "check the endpoint"),
    ),
    (
        "a variable that is no string",
        lambda: opened(environments={"A": 1}),
        ConfigError,
        ("environments['A'] is 1, an int", "{'A': \"1\"}"),
    ),
    ("variables as a list", lambda: opened(environments=["A=1"]), ConfigError, ("environments is a list",)),
    ("a keyword written wrongly", lambda: opened(dependancies=["x"]), TypeError, ("did you mean 'dependencies'?",)),
    ("both spellings of exclude", lambda: opened(exclude=["a"], excludes=["b"]), TypeError, ("one keyword",)),
    ("python_version as a number", lambda: opened(python_version=3.11), ConfigError, ('python_version="3.11"',)),
    ("a Python that is none", lambda: opened(python_version="py3"), ConfigError, ("is no version of Python",)),
    ("an archiver nobody has", lambda: opened(archivers=["zst"]), NegotiationError, ("on offer: tar.gz", "write  archivers =")),
    ("a serializer written wrongly", lambda: opened(serializers=["cloudpikle"]), NegotiationError, ("did you mean 'cloudpickle'?",)),
    ("a storage that is a path", lambda: opened(storage="/tmp/x"), ConfigError, ('storage="file:///tmp/x"',)),
    (
        "a project that is not there",
        lambda: opened(package=True, project="/nowhere/at/all"),
        ConfigError,
        ("/nowhere/at/all does not exist",),
    ),
    ("a project that is a file", lambda: opened(package=True, project=__file__), ConfigError, ("is a file", "directory")),
    ("a name with a blank", lambda: Runner("my app"), ConfigError, ("'my app'", "letters, digits")),
    ("logs written wrongly", lambda: opened(logs="al"), ConfigError, ("choose one of: all, errors, none",)),
    ("what a function returns", lambda: served(add(1)), TypeError, ("an int", "rr.service(fn)", "rr.service(fn(…))")),
    ("nothing", lambda: served(None), TypeError, ("was given None",)),
    ("arguments of a constructor", lambda: served(Counter, autoscale=5), TypeError, ("args=(…,)",)),
    ("an option written wrongly", lambda: served(add, max_instance=2), TypeError, ("did you mean 'max_instances'?",)),
    ("an option of another kind", lambda: served(add, timeout="5"), TypeError, ("timeout is '5', a str", "number of seconds")),
    ("less than no retries", lambda: served(add, retries=-1), ValueError, ("less than nothing",)),
    ("a resource nobody knows", lambda: served(add, resreq="cpus=1"), ConfigError, ("'cpus'", "known are cpu, mem")),
    ("a resource that is no number", lambda: served(add, resreq="cpu=one"), ConfigError, ("'one'", 'resreq="cpu=1"')),
    ("a limit nobody knows", lambda: served(add, engine="local", limits={"mem": 1}), ConfigError, ("known: memory",)),
    ("too many arguments", lambda: served(add, lambda svc: svc(1, 2, 3)), TypeError, ("add(a: 'int', b: 'int' = 1) -> 'int'", "too many")),
    ("a keyword nobody takes", lambda: served(add, lambda svc: svc(1, c=2)), TypeError, ("unexpected keyword argument 'c'",)),
    ("a method written wrongly", lambda: served(Counter, lambda svc: svc.ad(1)), AttributeError, ("did you mean 'add'?",)),
    ("a class called itself", lambda: served(Counter, lambda svc: svc(1)), TypeError, ("cannot be called itself", "add")),
    ("a lock as argument", lambda: served(add, lambda svc: svc(threading.Lock())), NotSerializableError, ("args[0]", "_thread.lock")),
    ("a global lock", lambda: served(guarded), NotSerializableError, ("global variable 'LOCK' of guarded", "make it within guarded")),
    ("a service as argument", lambda: served(add, lambda svc: svc(svc)), NotSerializableError, ("the service add stays",)),
    ("a future that is stored", pickled, TypeError, ("store .get() or .ref()",)),
    ("a service that is closed", after_close, ClosedError, ("is closed",)),
    ("one name for two Runners", twice, FlameError, ("is open in this program already", "another name")),
    ("an iterable that is none", lambda: served(add, lambda svc: list(svc.map(5))), TypeError, ("not iterable",)),
]

IN_WORKERS: list[tuple[str, Callable[[], object], type[BaseException], tuple[str, ...]]] = [
    (
        "a lock as result",
        lambda: served(lock, engine="local"),
        NotSerializableError,
        ("the result cannot be serialized: it is a _thread.lock",),
    ),
    ("sys.exit", lambda: served(sys.exit, engine="local"), TaskExitError, ("sys.exit(1)",)),
    ("a worker that ends", lambda: served(_exit, engine="local", retries=0), WorkerCrashedError, ("exited with code 1", "task 1")),
    (
        "more memory than allowed",
        lambda: served(many_bytes, lambda svc: svc(1 << 31).get(), engine="local", limits={"memory": 1 << 29}),
        MemoryError,
        ("512 MiB", "limits={'memory'"),
    ),
    ("a breakpoint", lambda: served(stop_here, engine="local"), bdb.BdbQuit, ("no terminal for a debugger", "svc.local")),
    ("a question", lambda: served(ask, engine="local"), EOFError, ("no standard input",)),
    (
        "a module that is not there",
        lambda: served(needs_what_is_not_there, engine="local"),
        ModuleNotFoundError,
        ("add what provides 'a_module_that_is_not_there'", "dependencies"),
    ),
    (
        "a short patience",
        lambda: served(time.sleep, lambda svc: svc(2).get(0.1), engine="local"),
        TimeoutError,
        ("task 1 of sleep", "0.1 s"),
    ),
    ("a short limit", lambda: served(time.sleep, lambda svc: svc(5).get(), engine="local", timeout=0.2), TaskTimeoutError, ("0.2 s",)),
]


def _exit(code: int) -> None:
    import os

    os._exit(code)


def said(error: BaseException) -> str:
    return "\n".join((str(error), *getattr(error, "__notes__", ())))


@pytest.mark.parametrize(("mistake", "kind", "parts"), [pytest.param(*case[1:], id=case[0]) for case in (*MISTAKES, *IN_WORKERS)])
def test_a_mistake_is_answered_with_what_to_do(mistake: Callable[[], object], kind: type[BaseException], parts: tuple[str, ...]) -> None:
    with pytest.raises(kind) as caught:
        mistake()
    if kind is TimeoutError:
        assert isinstance(caught.value, concurrent.futures.TimeoutError)
    for part in parts:
        assert part in said(caught.value)


def test_a_failed_installation_shows_the_callers_line_and_the_installers_words(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_HOST_OFFLINE", "1")
    with pytest.raises(InstallError) as caught:
        served_with_dependency("flame-no-such-name")
    text = "".join(traceback.format_exception(caught.value))
    assert "served_with_dependency" in text
    assert "FLAME_HOST_WHEELHOUSE" in text
    assert len(text.splitlines()) < 25, text
    assert "/flame_host/" not in text


def served_with_dependency(name: str) -> None:
    with Runner("mistakes", package=False, dependencies=[name]) as rr:
        rr.service(add)(1).get()


def test_a_module_that_would_run_its_program_again_in_the_worker_is_told_so(project: Path) -> None:
    import subprocess

    (project / "pyproject.toml").write_text('[project]\nname = "again"\nversion = "1"\n')
    (project / "work.py").write_text(
        "from flamepy import Runner\ndef f(x):\n    return x\nwith Runner('again') as rr:\n    rr.service(f)(1).get(timeout=60)\n"
    )
    done = subprocess.run([sys.executable, "-c", "import work"], cwd=project, capture_output=True, text=True, timeout=60)
    assert f"{project.resolve()}/work.py, line 4: Runner 'again' is opened while a worker imports this module" in done.stderr
    assert 'if __name__ == "__main__"' in done.stderr


def test_tracebacks_and_warnings_show_the_users_own_file(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    import subprocess

    (project / "pyproject.toml").write_text('[project]\nname = "own"\nversion = "1"\n')
    (project / "own.py").write_text("import warnings\ndef f():\n    warnings.warn('look')\n    return 1 / 0\n")
    program = "from flamepy import Runner\nimport own\nwith Runner('own') as rr:\n    rr.service(own.f)().get()\n"
    done = subprocess.run([sys.executable, "-c", program], cwd=project, capture_output=True, text=True, timeout=60)
    assert f'File "{project.resolve()}/own.py", line 4, in f' in done.stderr
    assert f"{project.resolve()}/own.py:3: UserWarning: look" in done.stderr
    assert "/trees/" not in done.stderr


def test_a_variable_nobody_reads_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_ENGIN", "inline")
    with pytest.raises(ConfigError, match="did you mean FLAME_ENGINE"):
        opened()


def test_both_spellings_of_exclude_are_understood_everywhere(project: Path) -> None:
    from flamepy._config.settings import resolve

    (project / "flame.yaml").write_text(
        "current-cluster: here\nclusters:\n  - name: here\n    package: {storage: 'file:///tmp/x', exclude: ['*.a']}\n"
    )
    (project / "pyproject.toml").write_text('[tool.flame]\nexcludes = ["*.b"]\n')
    assert {"*.a", "*.b", "*.c"} <= set(resolve(project, {"excludes": ["*.c"]}).excludes)
    for number, spelling in enumerate(("exclude", "excludes")):
        with Runner(f"app-{number}", engine="inline", storage=project.as_uri(), **{spelling: ["*.d"]}):  # type: ignore[arg-type]
            pass
