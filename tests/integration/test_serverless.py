"""The serverless example, built once and served twice: by our host, and by the worker SDK of the platform it is meant for."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cloudpickle
import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "serverless"
TOKEN = "a token of these tests"
FLAME = [str(Path(sys.executable).with_name("flame"))]

pytestmark = pytest.mark.slow


class Site(NamedTuple):
    """One way of serving the archive: where each resource is."""

    name: str
    urls: dict[str, str]


def environment(root: Path, **more: str) -> dict[str, str]:
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLAME_", "FLASH_", "RUNPOD_", "PYTHON"))}
    return {**kept, "FLAME_HOST_ROOT": str(root), "HOME": str(root), **more}


def flame(*arguments: str, cwd: Path, root: Path) -> subprocess.CompletedProcess[str]:
    cache = os.environ.get("UV_CACHE_DIR") or str(Path.home() / ".cache" / "uv")
    env = environment(root, UV_CACHE_DIR=cache)
    return subprocess.run([*FLAME, *arguments], cwd=cwd, env=env, capture_output=True, text=True, timeout=120, check=False)


def example_in(directory: Path) -> Path:
    project = directory / "serverless"
    shutil.copytree(EXAMPLE, project, ignore=shutil.ignore_patterns("__pycache__", ".flash"))
    return project


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("host-root")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory, root: Path) -> dict[str, Any]:
    project = example_in(tmp_path_factory.mktemp("project"))
    done = flame("build", "--json", cwd=project, root=root)
    assert done.returncode == 0, done.stderr
    report: dict[str, Any] = json.loads(done.stdout)
    return report


@pytest.fixture(scope="module")
def archive(built: dict[str, Any]) -> Path:
    return Path(built["archive"])


@pytest.fixture(scope="module")
def unpacked(archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As the platform unpacks it: the standard way, into a directory of its own."""
    directory = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(archive, directory)
    return directory


@contextlib.contextmanager
def running(order: list[str], *, cwd: Path, env: dict[str, str], log: Path) -> Iterator[subprocess.Popen[str]]:
    with log.open("w") as stderr:
        process = subprocess.Popen(
            order, cwd=cwd, env=env, stdout=subprocess.PIPE, stderr=stderr, stdin=subprocess.DEVNULL, text=True, start_new_session=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            raise
        finally:
            assert process.stdout is not None
            process.stdout.close()


@pytest.fixture(scope="module")
def host(archive: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """``flame run --handler``, as a user starts it."""
    directory = tmp_path_factory.mktemp("host")
    order = [*FLAME, "run", "--handler", str(archive), "--port", "0", "--json"]
    with running(order, cwd=directory, env=environment(root, FLAME_ENDPOINT_KEY=TOKEN), log=directory / "log") as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, (directory / "log").read_text()
        yield Site("host", json.loads(line)["resources"])


@pytest.fixture(scope="module")
def platform(
    built: dict[str, Any], unpacked: Path, worker_python: Path, root: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    """The platform's own worker for each resource, in its local mode, knowing where the others are."""
    directory = tmp_path_factory.mktemp("platform")
    urls = {name: f"http://127.0.0.1:{free_port()}" for name in built["manifest"]["resources"]}
    env = environment(root, FLAME_ENDPOINTS=json.dumps(urls))
    with contextlib.ExitStack() as stack:
        for name, about in built["manifest"]["resources"].items():
            port = urls[name].rpartition(":")[2]
            order = [str(worker_python), str(unpacked / about["handler_file"]), "--rp_serve_api", "--rp_api_host", "127.0.0.1"]
            log = directory / f"{name}.log"
            stack.enter_context(running([*order, "--rp_api_port", port], cwd=unpacked, env=env, log=log))
            wait_for(port, log)
        yield Site("platform", urls)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for(port: str, log: Path) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", int(port)), 1).close()
            return
        except OSError:
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.05)


def post(url: str, body: Any) -> dict[str, Any]:
    headers = {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(url, json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def encoded(value: Any) -> str:
    return base64.b64encode(cloudpickle.dumps(value)).decode()


def job(name: str, *args: Any, method: str = "", method_args: tuple[Any, ...] = (), **kwargs: Any) -> dict[str, Any]:
    job_input: dict[str, Any] = {"function_name": name, "args": [encoded(value) for value in args]}
    job_input["kwargs"] = {key: encoded(value) for key, value in kwargs.items()}
    if method:
        job_input |= {"execution_type": "class", "method_name": method, "method_args": [encoded(value) for value in method_args]}
    return {"input": job_input}


def outcome(answer: dict[str, Any]) -> tuple[str, Any]:
    """What a client sees of a job: its value, or its error."""
    if answer["status"] == "COMPLETED":
        assert answer["output"]["success"] is True
        return "COMPLETED", cloudpickle.loads(base64.b64decode(answer["output"]["result"]))
    return answer["status"], answer["error"]


def ask(site: Site, resource: str, body: dict[str, Any]) -> tuple[str, Any]:
    return outcome(post(f"{site.urls[resource]}/runsync", body))


# ---------------------------------------------------------------------------------------------------- what fails


def test_a_project_with_a_syntax_error_is_not_built(tmp_path: Path, root: Path) -> None:
    project = example_in(tmp_path)
    (project / "pipeline" / "broken.py").write_text("def f(:\n")
    done = flame("build", "--json", cwd=project, root=root)
    assert done.returncode == 1
    problems = json.loads(done.stdout)["problems"]
    assert [(problem["file"], problem["line"]) for problem in problems] == [("pipeline/broken.py", 1)]
    assert not (project / ".flash" / "archive.tar.gz").exists()


def test_an_archive_over_the_limit_is_refused_with_its_largest_parts(tmp_path: Path, root: Path) -> None:
    project = example_in(tmp_path)
    (project / "model.bin").write_bytes(os.urandom(1_500_000))
    done = flame("build", "--no-deps", "--size-limit", "1", cwd=project, root=root)
    assert done.returncode == 1
    assert "model.bin" in done.stderr
    assert not (project / ".flash" / "archive.tar.gz").exists()


def test_a_handler_that_does_not_know_the_other_endpoint_says_how_to_tell_it(unpacked: Path, worker_python: Path, root: Path) -> None:
    done = test_input(worker_python, unpacked, root, "gpu-worker", job("sentiment", "great"))
    assert done.returncode == 1
    said = done.stdout + done.stderr
    assert "words lives at endpoint 'cpu-worker', and no URL of that is known" in said
    assert "FLAME_ENDPOINTS" in said


FAILING = [
    ("an exception", "gpu-worker", job("sentiment", "!"), "there is no word in this text"),
    ("an exception of the other endpoint", "gpu-worker", job("sentiment", 5), "'int' object has no attribute 'lower'"),
    ("an exception of a method", "cpu-worker", job("Vocabulary", method="number", method_args=("new",)), "'new'"),
    ("a method that is not there", "cpu-worker", job("Vocabulary", method="no"), "'Vocabulary' object has no attribute 'no'"),
    ("wrong arguments", "cpu-worker", job("words", "a", "b"), "words(): too many positional arguments"),
    ("payload that is no base64", "cpu-worker", {"input": {"function_name": "words", "args": ["***"]}}, "args[0] is not base64"),
    ("a function of the other endpoint", "cpu-worker", job("sentiment", "x"), "Function 'sentiment' not found in registry. Available: "),
    ("no function", "cpu-worker", {"input": {}}, "Function 'None' not found in registry. Available: "),
]  # fmt: skip


@pytest.mark.parametrize(("resource", "body", "words"), [case[1:] for case in FAILING], ids=[case[0] for case in FAILING])
def test_failures_are_told_alike_by_host_and_platform(host: Site, platform: Site, resource: str, body: dict[str, Any], words: str) -> None:
    ours, theirs = ask(host, resource, body), ask(platform, resource, body)
    assert ours == theirs
    assert ours[0] == "FAILED"
    assert words in str(ours[1])


def test_a_failure_behind_another_endpoint_arrives_with_the_traceback_there(host: Site) -> None:
    answer = post(f"{host.urls['gpu-worker']}/runsync", job("sentiment", 5))
    trace = answer["output"]["traceback"]
    assert "AttributeError" in trace
    assert "pipeline/text.py" in trace  # where it was raised
    assert "pipeline/model.py" in trace  # where it was called


# ---------------------------------------------------------------------------------------------------- what succeeds

ANSWERS = [
    ("a function", "cpu-worker", job("words", "Good docs"), ["good", "docs"]),
    ("a keyword", "cpu-worker", job("words", text="Good docs"), ["good", "docs"]),
    ("a dependency", "cpu-worker", job("describe", "x" * 1000), "1,000 characters"),
    ("no arguments", "gpu-worker", job("device"), "cpu"),
    ("a call to the other endpoint", "gpu-worker", job("sentiment", "good, bad, good day"), 0.25),
    ("an async function", "gpu-worker", job("rank", ["bad", "good"]), [(1.0, "good"), (-1.0, "bad")]),
    ("a class", "cpu-worker", job("Vocabulary", "de", method="learn", method_args=("eins zwei",)), 2),
    ("the state of the class", "cpu-worker", job("Vocabulary", "de", method="learn", method_args=("drei",)), 3),
    ("another instance", "cpu-worker", job("Vocabulary", "fr", method="learn", method_args=("un",)), 1),
    ("an async method", "gpu-worker", job("Memory", decay=0.5, method="hear", method_args=("good",)), 1.0),
    ("its state", "gpu-worker", job("Memory", decay=0.5, method="hear", method_args=("bad",)), -0.5),
]


def test_every_kind_of_job_is_answered_alike_by_host_and_platform(host: Site, platform: Site) -> None:
    """One test, for the jobs build on each other's state."""
    for what, resource, body, expected in ANSWERS:
        ours, theirs = ask(host, resource, body), ask(platform, resource, body)
        assert ours == ("COMPLETED", expected), what
        assert theirs == ours, what


@pytest.mark.parametrize("kind", ["host", "platform"])
def test_a_job_can_be_left_and_asked_for_later(kind: str, request: pytest.FixtureRequest) -> None:
    site: Site = request.getfixturevalue(kind)
    url = site.urls["cpu-worker"]
    queued = post(f"{url}/run", job("words", "Good docs"))
    deadline = time.monotonic() + 20
    answer = queued
    while answer["status"] in ("IN_QUEUE", "IN_PROGRESS"):
        assert time.monotonic() < deadline
        answer = post(f"{url}/status/{queued['id']}", {})
    assert outcome(answer) == ("COMPLETED", ["good", "docs"])


def test_a_single_job_can_be_given_on_the_command_line(unpacked: Path, worker_python: Path, root: Path) -> None:
    done = test_input(worker_python, unpacked, root, "cpu-worker", job("words", "Good docs"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert encoded(["good", "docs"]) in done.stdout + done.stderr
    failed = test_input(worker_python, unpacked, root, "cpu-worker", job("words", None))
    assert failed.returncode == 1
    assert "'NoneType' object has no attribute 'lower'" in failed.stdout + failed.stderr


def test_input(python: Path, unpacked: Path, root: Path, resource: str, body: dict[str, Any]) -> subprocess.CompletedProcess[str]:
    """``--test_input`` of the platform's worker."""
    order = [str(python), f"handler_{resource}.py", "--test_input", json.dumps(body)]
    return subprocess.run(order, cwd=unpacked, env=environment(root), capture_output=True, text=True, timeout=60, check=False)


test_input.__test__ = False  # type: ignore[attr-defined]  # named after the option


def test_the_example_gives_the_same_answers_without_a_build(tmp_path: Path, root: Path, host: Site) -> None:
    project = example_in(tmp_path)
    client = subprocess.run(
        [sys.executable, "client.py", host.urls["cpu-worker"].rpartition("/")[0]],
        cwd=project, env=environment(root, FLAME_ENDPOINT_KEY=TOKEN), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert client.returncode == 0, client.stderr
    local = subprocess.run(
        [sys.executable, "main.py"], cwd=project, env=environment(root), capture_output=True, text=True, timeout=110, check=False
    )
    assert local.returncode == 0, local.stderr
    for line in client.stdout.splitlines():
        if not line.startswith("vocabulary"):  # the server's has learnt from other tests
            assert line in local.stdout.splitlines()


DENYING = """
from flamepy import CpuResource, remote

@remote(CpuResource(name="one"))
def up(number):
    return number + 1

@remote(CpuResource(name="two"))
def twice(number):
    return up(number) * 2
"""


def test_a_project_that_denies_pickle_speaks_json_outside_and_between_its_endpoints(tmp_path: Path, root: Path) -> None:
    project = tmp_path / "denying"
    project.mkdir()
    (project / "app.py").write_text(DENYING)
    (project / "pyproject.toml").write_text('[tool.flame]\npolicy = {pickle = "deny"}\n')
    report = json.loads(flame("build", "--json", cwd=project, root=root).stdout)
    order = [*FLAME, "run", "--handler", report["archive"], "--port", "0", "--json"]
    with running(order, cwd=tmp_path, env=environment(root, FLAME_ENDPOINT_KEY=TOKEN), log=tmp_path / "log") as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        plain = base64.b64encode(b"20").decode()
        done = post(f"{url}/runsync", {"input": {"function_name": "twice", "format": "json/1", "args": [plain]}})
        assert done["status"] == "COMPLETED"
        assert json.loads(base64.b64decode(done["output"]["result"])) == 42
        pickled = job("twice", 20)
        pickled["input"]["format"] = "cloudpickle/1"
        assert "pickle is denied by policy" in post(f"{url}/runsync", pickled)["error"]


# ---------------------------------------------------------------------------------------------------- the archive


def test_two_builds_of_one_tree_are_the_same_bytes(tmp_path: Path, root: Path) -> None:
    """Elsewhere, later, with other times and permissions of its files."""
    reports = []
    for place in ("here", "there"):
        project = example_in(tmp_path / place)
        if place == "there":
            for path in project.rglob("*.py"):
                os.utime(path, (1, 1))
                path.chmod(0o600)
        reports.append(json.loads(flame("build", "--json", cwd=project, root=root).stdout))
    assert reports[0]["digest"] == reports[1]["digest"]
    contents = [Path(report["archive"]).read_bytes() for report in reports]
    assert contents[0] == contents[1]
    assert hashlib.sha256(contents[0]).hexdigest() == reports[0]["digest"]


def test_an_archive_is_flat_and_holds_neither_secrets_nor_bytecode(tmp_path: Path, root: Path) -> None:
    project = example_in(tmp_path)
    for name in (".env", "server.pem", "id_rsa"):
        (project / name).write_text("secret")
    done = flame("build", "--json", "--output", "mine.tar.gz", cwd=project, root=root)
    report = json.loads(done.stdout)
    assert Path(report["archive"]) == project / ".flash" / "mine.tar.gz"
    assert any("secret" in note for note in report["notes"])
    with tarfile.open(report["archive"]) as tar:
        names = tar.getnames()
    assert {"flash_manifest.json", "handler_cpu-worker.py", "handler_gpu-worker.py", "pipeline/model.py", "humanize/__init__.py"} <= set(
        names
    )
    assert not [name for name in names if name.endswith((".pyc", ".env", ".pem", "id_rsa")) or "__pycache__" in name]


def test_undeploy_removes_what_was_built_and_nothing_else(tmp_path: Path, root: Path) -> None:
    project = example_in(tmp_path)
    before = sorted(path for path in project.rglob("*"))
    assert flame("build", "--no-deps", "--keep-build", cwd=project, root=root).returncode == 0
    assert (project / ".flash" / ".build" / "handler_gpu-worker.py").is_file()
    done = flame("undeploy", cwd=project, root=root)
    assert "archive.tar.gz" in done.stdout
    assert sorted(path for path in project.rglob("*")) == before
    assert flame("undeploy", cwd=project, root=root).stdout == "nothing to remove\n"


def test_an_interrupted_server_ends_its_workers_and_leaves_no_directory(archive: Path, root: Path, tmp_path: Path) -> None:
    order = [*FLAME, "run", "--handler", str(archive), "--port", "0", "--json"]
    with running(
        order, cwd=tmp_path, env=environment(root, TMPDIR=str(tmp_path), FLAME_ENDPOINT_KEY=TOKEN), log=tmp_path / "log"
    ) as process:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        assert outcome(post(f"{url}/runsync", job("words", "a b"))) == ("COMPLETED", ["a", "b"])
        os.killpg(process.pid, signal.SIGINT)
        assert process.wait(20) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["log"]
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(url, timeout=1)
