"""The local server of built archives: what is asked over HTTP is answered by handlers in worker processes."""

from __future__ import annotations

import base64
import http.client
import json
import os
import pickle
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest
from flamepy.build.jobs import Job, Jobs
from flamepy.build.server import HandlerServer

from flame_host import Host
from flame_host.api import InterpreterNotFoundError, Member, PackageError

TOKEN = "a token of these tests"
SHOWN = {"Authorization": f"Bearer {TOKEN}"}

HANDLER = """
from flame_host.handler import create_handler
import app
handler = create_handler({registry})
"""

APP = """
import os, sys, time

def double(number):
    return number * 2

def where():
    return os.getpid(), *map(os.environ.get, ("FLAME_RESOURCE_NAME", "SETTING", "FLAME_ENDPOINTS", "GIVEN"))

def slow(seconds):
    time.sleep(seconds)
    return "woken"

def fails():
    raise KeyError("no such thing")

def dies():
    os._exit(3)

class Counter:
    def __init__(self, start=0):
        self.count = start
    def add(self, number):
        self.count += number
        return self.count
"""

MANIFEST = {
    "version": "1.0",
    "project_name": "made-by-hand",
    "resources": {
        "a": {
            "resource_type": "CpuResource",
            "handler_file": "handler_a.py",
            "functions": [],
            "env": {"SETTING": "of a", "GIVEN": None},
            "workers": [0, 1],
        },
        "b/ü": {"resource_type": "CpuResource", "handler_file": "handler_b-1.py", "functions": [], "workers": [0, 2]},
    },
    "function_registry": {"double": "a", "where": "a", "fails": "a", "dies": "a", "Counter": "a", "slow": "b/ü", "here": "b/ü"},
}


def files() -> dict[str, str]:
    names = ("double", "where", "fails", "dies", "Counter")
    return {
        "app.py": APP,
        "flash_manifest.json": json.dumps(MANIFEST),
        "handler_a.py": HANDLER.format(registry="{" + ", ".join(f"'{name}': app.{name}" for name in names) + "}"),
        "handler_b-1.py": HANDLER.format(registry="{'slow': app.slow, 'here': app.where}"),
    }


def archived(path: Path, contents: dict[str, str]) -> Path:
    members = [Member(name, size=len(text.encode()), content=text.encode()) for name, text in sorted(contents.items())]
    with path.open("wb") as stream:
        Host().catalog.archiver("tar.gz").write(members, stream)
    return path


@pytest.fixture(autouse=True)
def shell(host_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_HOST_ROOT", str(host_root))


@pytest.fixture
def server(project: Path) -> Iterator[HandlerServer]:
    with HandlerServer(archived(project / "archive.tar.gz", files()), token=TOKEN) as server:
        yield server


def post(url: str, body: Any, **headers: str) -> tuple[int, dict[str, Any]]:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return opened(urllib.request.Request(url, data, {"Content-Type": "application/json", **SHOWN, **headers}))


def opened(request: urllib.request.Request | str) -> tuple[int, dict[str, Any]]:
    if isinstance(request, str):
        request = urllib.request.Request(request, headers=SHOWN)
    try:
        with urllib.request.urlopen(request, timeout=30) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def job(name: str, *args: Any, **more: Any) -> dict[str, Any]:
    return {"input": {"function_name": name, "args": [encoded(value) for value in args], **more}}


def encoded(value: Any) -> str:
    return base64.b64encode(pickle.dumps(value)).decode()


def value_of(answer: dict[str, Any]) -> Any:
    assert answer["status"] == "COMPLETED", answer
    return pickle.loads(base64.b64decode(answer["output"]["result"]))


def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


# ---------------------------------------------------------------------------------------------------- archives that cannot be served


def test_an_archive_that_is_not_there_is_named(project: Path) -> None:
    with pytest.raises(PackageError, match=r"no archive at .*nothing\.tar\.gz"):
        HandlerServer(project / "nothing.tar.gz")


def test_a_file_that_is_no_archive_by_its_name_is_refused(project: Path) -> None:
    (project / "archive.bin").write_bytes(b"x")
    with pytest.raises(PackageError, match="no archive by its name"):
        HandlerServer(project / "archive.bin")


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (None, "holds no flash_manifest.json"),
        ("{", "cannot be read"),
        ("[]", "not an object"),
        ('{"version": "2.0", "resources": {"a": {}}}', "version 2.0"),
        ('{"version": "1.0", "resources": {}}', "names no resource"),
        ('{"version": "1.0", "resources": {"a": {"handler_file": "handler_missing.py"}}}', "no handler"),
        ('{"version": "1.0", "resources": {"a": {"handler_file": "os\\nsystem\\n.py"}}}', "no handler"),
        ('{"version": "1.0", "resources": {"a": {}}}', "none is named"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be_served_is_refused_with_the_reason(project: Path, manifest: str | None, words: str) -> None:
    contents = {"app.py": ""} if manifest is None else {"app.py": "", "flash_manifest.json": manifest}
    with pytest.raises(PackageError, match=words):
        HandlerServer(archived(project / "archive.tar.gz", contents))


def test_an_archive_for_a_python_that_is_not_here_is_refused_at_the_start(project: Path) -> None:
    contents = {**files(), "flash_manifest.json": json.dumps({**MANIFEST, "python": "3.99"})}
    with pytest.raises(InterpreterNotFoundError, match=r"3\.99"):
        HandlerServer(archived(project / "archive.tar.gz", contents))


def test_a_port_that_is_taken_is_an_oserror_and_nothing_is_left(project: Path) -> None:
    archive = archived(project / "archive.tar.gz", files())
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        HandlerServer(archive, port=taken.getsockname()[1])


# ---------------------------------------------------------------------------------------------------- requests that are refused


@pytest.mark.parametrize(
    ("body", "headers", "status", "words"),
    [
        (b"{", {}, 400, "not JSON"),
        (b"[" * 100_000, {}, 400, "not JSON"),
        (b"[]", {}, 422, "input"),
        (b"{}", {}, 422, "input"),
        (b"{}", {"Content-Type": "text/plain"}, 415, "application/json"),
        (b'{"input": {}}', {"Origin": "http://example.org"}, 403, "browser"),
        (b'{"input": {}}', {"Host": "rebound.example.org"}, 403, "this machine"),
    ],
)
def test_a_request_that_is_no_job_is_refused_with_the_reason(
    server: HandlerServer, body: bytes, headers: dict[str, str], status: int, words: str
) -> None:
    code, answer = post(f"{server.url}/runsync", body, **headers)
    assert code == status
    assert words in answer["error"]


def test_a_request_that_is_too_large_is_refused_before_it_is_read(server: HandlerServer) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/runsync")
    connection.putheader(*next(iter(SHOWN.items())))
    connection.putheader("Content-Length", str(1 << 40))
    connection.endheaders()
    response = connection.getresponse()
    assert response.status == 413
    connection.close()


@pytest.mark.parametrize(("shown", "status"), [(SHOWN, 413), ({}, 401)])
def test_a_client_that_sends_more_than_is_taken_is_told_so(server: HandlerServer, shown: dict[str, str], status: int) -> None:
    request = urllib.request.Request(f"{server.url}/runsync", b"x" * (70 << 20), {"Content-Type": "application/json", **shown})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=30)
    with caught.value as answer:
        assert answer.code == status
        assert json.load(answer)["error"]


def test_a_request_without_a_length_is_refused(server: HandlerServer) -> None:
    connection = http.client.HTTPConnection(server.url.removeprefix("http://"), timeout=10)
    connection.putrequest("POST", "/runsync")
    connection.putheader(*next(iter(SHOWN.items())))
    connection.endheaders()
    assert connection.getresponse().status == 411
    connection.close()


def test_a_path_nobody_serves_is_told_with_those_that_are(server: HandlerServer) -> None:
    code, answer = opened(f"{server.url}/nowhere")
    assert code == 404
    assert "/runsync" in answer["error"]
    assert opened(f"{server.url}/run")[0] == 405


def test_a_job_nobody_knows_is_not_found(server: HandlerServer) -> None:
    assert opened(f"{server.url}/status/unknown")[0] == 404


# ---------------------------------------------------------------------------------------------------- jobs that fail


def test_a_function_nobody_registered_fails_with_the_names_of_those_that_are(server: HandlerServer) -> None:
    _, answer = post(f"{server.url}/runsync", job("unknown"))
    assert answer["status"] == "FAILED"
    assert answer["error"].startswith("Function 'unknown' not found in registry. Available: ['double'")


def test_a_function_of_another_resource_is_not_found_at_this_one(server: HandlerServer) -> None:
    _, answer = post(f"{server.url_of('a')}/runsync", job("slow", 0))
    assert answer["status"] == "FAILED"
    assert "Function 'slow' not found" in answer["error"]


def test_an_exception_fails_the_job_and_its_traceback_is_not_lost(server: HandlerServer) -> None:
    _, answer = post(f"{server.url}/runsync", job("fails"))
    assert (answer["status"], answer["error"]) == ("FAILED", "'no such thing'")
    assert 'raise KeyError("no such thing")' in answer["output"]["traceback"]


def test_a_worker_that_dies_fails_its_job_and_the_next_one_is_served(server: HandlerServer) -> None:
    _, answer = post(f"{server.url}/runsync", job("dies"))
    assert answer["status"] == "FAILED"
    assert "exit" in answer["error"]
    assert value_of(post(f"{server.url}/runsync", job("double", 4))[1]) == 8


def test_a_handler_that_cannot_be_imported_fails_jobs_with_the_reason(project: Path) -> None:
    contents = {**files(), "handler_a.py": "import no_such_module\n"}
    with HandlerServer(archived(project / "archive.tar.gz", contents), token=TOKEN) as server:
        _, answer = post(f"{server.url}/runsync", job("double", 1))
    assert answer["status"] == "FAILED"
    assert "no_such_module" in answer["error"]


# ---------------------------------------------------------------------------------------------------- jobs that succeed


def test_a_job_is_routed_by_its_function_or_by_the_path(server: HandlerServer) -> None:
    assert value_of(post(f"{server.url}/runsync", job("double", 21))[1]) == 42
    assert value_of(post(f"{server.url_of('a')}/runsync", job("double", "ab"))[1]) == "abab"


def test_each_resource_has_a_process_and_an_environment_of_its_own(server: HandlerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIVEN", "by whoever serves it")
    one = value_of(post(f"{server.url}/runsync", job("where"))[1])
    two = value_of(post(f"{server.url}/runsync", job("here"))[1])
    assert len({one[0], two[0], os.getpid()}) == 3
    assert one[1:3] == ("a", "of a")
    assert two[1:3] == ("b/ü", None)
    assert one[4] == "by whoever serves it"
    assert json.loads(one[3]) == {"a": server.url_of("a"), "b/ü": server.url_of("b/ü")}


def test_a_class_keeps_its_state_between_jobs(server: HandlerServer) -> None:
    add = {"execution_type": "class", "method_name": "add", "method_args": [encoded(2)]}
    assert [value_of(post(f"{server.url}/runsync", job("Counter", 10, **add))[1]) for _ in range(3)] == [12, 14, 16]


def test_run_answers_at_once_and_status_tells_the_outcome_more_than_once(server: HandlerServer) -> None:
    began = time.monotonic()
    _, queued = post(f"{server.url}/run", job("slow", 0.5))
    assert time.monotonic() - began < 0.4
    assert queued["status"] in ("IN_QUEUE", "IN_PROGRESS")
    status = f"{server.url}/status/{queued['id']}"
    until(lambda: opened(status)[1]["status"] == "COMPLETED")
    assert value_of(opened(status)[1]) == "woken"
    assert value_of(post(status, b"")[1]) == "woken"
    assert opened(f"{server.url_of('b/ü')}/status/{queued['id']}")[0] == 200
    assert opened(f"{server.url_of('a')}/status/{queued['id']}")[0] == 404


def test_a_job_that_is_cancelled_ends(server: HandlerServer) -> None:
    _, queued = post(f"{server.url}/run", job("slow", 30))
    post(f"{server.url}/cancel/{queued['id']}", b"")
    until(lambda: opened(f"{server.url}/status/{queued['id']}")[1]["status"] == "CANCELLED")


def test_many_clients_are_answered_each_with_its_own(server: HandlerServer) -> None:
    answers: dict[int, Any] = {}

    def ask(number: int) -> None:
        answers[number] = value_of(post(f"{server.url}/runsync", job("double", number))[1])

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: number * 2 for number in range(32)}


def test_what_is_served_can_be_asked_for(server: HandlerServer) -> None:
    _, index = opened(server.url)
    assert index["resources"] == {name: server.url_of(name) for name in ("a", "b/ü")}
    assert index["functions"] == MANIFEST["function_registry"]


def test_only_jobs_that_may_be_asked_for_are_kept(server: HandlerServer) -> None:
    answered = post(f"{server.url}/runsync", job("double", 1))[1]
    assert opened(f"{server.url}/status/{answered['id']}")[0] == 404
    assert opened(f"{server.url}/health")[1] == {"jobs": {"inProgress": 0, "completed": 0}}
    queued = post(f"{server.url}/run", job("double", 1))[1]
    until(lambda: opened(f"{server.url}/status/{queued['id']}")[1]["status"] == "COMPLETED")
    assert opened(f"{server.url}/health")[1] == {"jobs": {"inProgress": 0, "completed": 1}}


# ---------------------------------------------------------------------------------------------------- the end


def test_closing_ends_workers_and_jobs_and_closes_the_port(project: Path) -> None:
    server = HandlerServer(archived(project / "archive.tar.gz", files()), token=TOKEN)
    pid = value_of(post(f"{server.url}/runsync", job("where"))[1])[0]
    post(f"{server.url}/run", job("slow", 60))
    server.close()
    server.close()
    until(lambda: not Path(f"/proc/{pid}").exists())
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(server.url, timeout=1)


def test_jobs_that_are_done_are_forgotten_after_their_time_or_when_there_are_too_many() -> None:
    jobs = Jobs(kept_seconds=0.05, most=2)
    waiting, *done = (jobs.add(Job(str(number), "a", Future())) for number in range(4))
    for each in done:
        each.output.set_result({})
    assert jobs.get("1", None) is None
    assert jobs.get("2", None) is None
    assert jobs.get("3", None) is done[2]
    time.sleep(0.06)
    assert jobs.get("3", None) is None
    assert jobs.get("0", None) is waiting
