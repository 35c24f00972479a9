"""The job loop of the platform's own worker SDK, as it runs there: jobs are fetched from a server, and may be taken back while they run."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import textwrap
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flamepy.build import build_project

pytestmark = pytest.mark.slow

APP = '''
import asyncio
import os
import pathlib
import time

from runpod_flash import Endpoint


class Marks:
    """Tells, by files, that a function has begun, and how it ended."""

    def __init__(self, directory):
        self.directory = pathlib.Path(directory)

    def __enter__(self):
        (self.directory / "begun").touch()
        return self

    def __exit__(self, kind, error, trace):
        written = self.directory / "ending"
        written.write_text(kind.__name__ if kind else "done")
        written.rename(self.directory / "ended")  # whole when it is there


@Endpoint(name="plain")
def plain(directory: str = "", seconds: float = 0):
    if directory:
        with Marks(directory):
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                try:
                    time.sleep(0.01)
                except Exception:
                    pass  # as programs do that go on whatever happens
    return os.getpid()


@Endpoint(name="stuck")
def stuck(directory: str):
    with Marks(directory):
        time.sleep(600)


@Endpoint(name="later", max_concurrency=4)
async def later(directory: str = "", seconds: float = 0):
    if directory:
        with Marks(directory):
            await asyncio.sleep(seconds)
    return os.getpid()


@Endpoint(name="stream")
async def stream(directory: str = "", n: int = 3):
    if not directory:
        for number in range(n):
            yield number
        return
    with Marks(directory):
        for number in range(n):
            await asyncio.sleep(0.01)
            yield number
'''


class Platform:
    """The part of the platform that a worker talks to: gives jobs, says which to stop, takes results."""

    def __init__(self) -> None:
        self._jobs: queue.Queue[dict[str, Any]] = queue.Queue()
        self._stops: queue.Queue[str] = queue.Queue()
        self.results: dict[str, Any] = {}
        self.pieces: dict[str, list[Any]] = {}
        self.changed = threading.Condition()
        self.open = True

    def give(self, **given: Any) -> str:
        id = uuid.uuid4().hex
        self._jobs.put({"id": id, "input": given})
        return id

    def take_back(self, id: str) -> None:
        self._stops.put(id)

    def result(self, id: str) -> Any:
        self.until(lambda: id in self.results)
        return self.results[id]

    def until(self, condition: Callable[[], Any], seconds: float = 60) -> None:
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def taken(self, most: int) -> list[dict[str, Any]]:
        return self._of(self._jobs, most)

    def stopped(self) -> list[str]:
        return self._of(self._stops, 100)

    def _of(self, things: queue.Queue[Any], most: int) -> list[Any]:
        """At most so many of them, waiting a little for the first, as a long poll does."""
        found: list[Any] = []
        with contextlib.suppress(queue.Empty):
            found.append(things.get(timeout=0.3 if self.open else 0))
            while len(found) < most:
                found.append(things.get_nowait())
        return found


class Requests(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    platform: Platform

    def do_GET(self) -> None:
        asked = urlsplit(self.path)
        if "/job-stop/" in asked.path:
            ids = self.platform.stopped()
            self._answer({"jobsToStop": ids} if ids else None)
        elif "/job-take-batch/" in asked.path:
            self._answer(self.platform.taken(int(parse_qs(asked.query)["batch_size"][0])) or None)
        else:
            self._answer(next(iter(self.platform.taken(1)), None))

    def do_POST(self) -> None:
        kind, id = urlsplit(self.path).path.split("/")[1:3]
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if kind == "job-done":
            self.platform.results[id] = body
        else:
            self.platform.pieces.setdefault(id, []).append(body["output"])
        self._answer({})

    def _answer(self, body: Any) -> None:
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(204 if body is None else 200)
        self.send_header("Content-Type", "application/json")
        if body is not None:
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("loop") / "program"
    project.mkdir()
    (project / "app.py").write_text(textwrap.dedent(APP))
    directory = tmp_path_factory.mktemp("unpacked")
    shutil.unpack_archive(build_project(project, target="here").archive, directory)
    return directory


Worker = tuple[Platform, "subprocess.Popen[str]", Path]


@pytest.fixture
def worker(request: pytest.FixtureRequest, unpacked: Path, worker_python: Path, tmp_path: Path) -> Iterator[Worker]:
    """The worker of the resource a test is parametrized with, and the platform it belongs to."""
    platform = Platform()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (Requests,), {"platform": platform}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    url = f"http://127.0.0.1:{server.server_address[1]}"
    env = {key: value for key, value in os.environ.items() if not key.startswith(("FLAME_", "FLASH_", "RUNPOD_", "PYTHON"))}
    env |= {
        "RUNPOD_WEBHOOK_GET_JOB": f"{url}/job-take/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_OUTPUT": f"{url}/job-done/$ID?gpu=none",
        "RUNPOD_WEBHOOK_POST_STREAM": f"{url}/job-stream/$ID?gpu=none",
        "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
        "FLAME_STOP_SECONDS": "1" if request.param == "stuck" else "30",
    }
    log = tmp_path / "log"
    with log.open("w") as output:
        order = [str(worker_python), f"handler_{request.param}.py"]
        process = subprocess.Popen(order, cwd=unpacked, env=env, stdout=output, stderr=output, text=True, start_new_session=True)
    try:
        yield platform, process, log
    finally:
        platform.open = False
        process.terminate()  # the loop ends by itself
        try:
            process.wait(30)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            server.shutdown()
            server.server_close()


def marks(tmp_path: Path) -> Path:
    directory = tmp_path / uuid.uuid4().hex
    directory.mkdir()
    return directory


@pytest.mark.parametrize(
    ("worker", "given", "said"),
    [("plain", {"seconds": 600}, "Stopped"), ("later", {"seconds": 600}, "CancelledError"), ("stream", {"n": 10**6}, "CancelledError")],
    indirect=["worker"],
)
def test_a_running_job_that_is_taken_back_stops_and_the_worker_does_the_next(
    worker: Worker, tmp_path: Path, given: dict[str, Any], said: str
) -> None:
    platform, process, log = worker
    directory = marks(tmp_path)
    id = platform.give(directory=str(directory), **given)
    platform.until((directory / "begun").exists)
    platform.take_back(id)
    platform.until((directory / "ended").exists)
    assert (directory / "ended").read_text() == said or "n" in given, log.read_text()  # what is at a yield is closed
    following = platform.give(n=1) if "n" in given else platform.give(seconds=0)
    assert platform.result(following).get("output") == ([0] if "n" in given else process.pid), log.read_text()
    assert id not in platform.results


@pytest.mark.parametrize("worker", ["later"], indirect=True)
def test_the_other_jobs_of_a_worker_go_on_when_one_is_taken_back(worker: Worker, tmp_path: Path) -> None:
    platform, process, _ = worker
    places = [marks(tmp_path) for _ in range(4)]
    ids = [platform.give(directory=str(place), seconds=600 if place is places[0] else 1.5) for place in places]
    for place in places:
        platform.until((place / "begun").exists)
    assert not any((place / "ended").exists() for place in places)  # all four at once
    platform.take_back(ids[0])
    assert [platform.result(id)["output"] for id in ids[1:]] == [process.pid] * 3
    assert [(place / "ended").read_text() for place in places] == ["CancelledError", "done", "done", "done"]
    assert ids[0] not in platform.results


@pytest.mark.parametrize("worker", ["stuck"], indirect=True)
def test_a_worker_ends_when_a_job_that_is_taken_back_cannot_be_stopped(worker: Worker, tmp_path: Path) -> None:
    platform, process, log = worker
    directory = marks(tmp_path)
    id = platform.give(directory=str(directory))
    platform.until((directory / "begun").exists)
    platform.take_back(id)
    process.wait(60)
    assert "a job that was taken back has not stopped within 1 s: this worker ends" in log.read_text()
    assert not (directory / "ended").exists()


@pytest.mark.parametrize("worker", ["stream"], indirect=True)
def test_a_stream_is_sent_piece_by_piece_and_whole(worker: Worker) -> None:
    platform, _, _ = worker
    id = platform.give(n=3)
    assert platform.result(id)["output"] == [0, 1, 2]
    assert platform.pieces[id] == [0, 1, 2]
