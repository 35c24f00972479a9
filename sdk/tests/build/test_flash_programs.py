"""A program for RunPod Flash, from its source to jobs, streams and requests: built once, served by real workers."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
import textwrap
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from flamepy.build import build_project
from flamepy.build.server import HandlerServer
from flamepy.flash import Endpoint, LiveServerless, remote

from flame_host.serverless.routing import EndpointError

TOKEN = "a token of these tests"
APP = '''
"""Unchanged, as such programs are written."""
import asyncio
import time

try:
    from runpod_flash import CpuLiveServerless, Endpoint, GpuGroup, remote
except ImportError:
    from tetra_rp import CpuLiveServerless, Endpoint, GpuGroup, remote

cpu = CpuLiveServerless(name="cpu_worker", workersMax=1)
api = Endpoint(name="shop-api", cpu="cpu3c-1-2", workers=(0, 1), max_concurrency=4)


class OutOfStock(Exception):
    def __init__(self, item, left):
        super().__init__(f"{item}: {left} left")
        self.item, self.left = item, left


@remote(cpu)
def take(item: str, n: int) -> dict:
    if n > 3:
        raise OutOfStock(item, 3)
    return {"took": n}


@remote(resource_config=cpu)
class Shelf:
    def __init__(self, rows: int = 2):
        self.rows, self.things = rows, []

    def put(self, thing: str) -> int:
        self.things.append(thing)
        return len(self.things)


@Endpoint(name="pipeline", gpu=GpuGroup.ANY)
async def pipeline(item: str) -> dict:
    first, second = await asyncio.gather(take(item, 1), take(item, 2))
    shelf = Shelf(rows=1)
    await shelf.put(item)
    try:
        await take(item, 9)
    except OutOfStock as error:
        left = error.left
    return {"took": first["took"] + second["took"], "left": left, "words": [word async for word in words("a b")]}


@Endpoint(name="words")
async def words(text: str):
    for word in text.split():
        await asyncio.sleep(0.01)
        yield word


@Endpoint(name="meeting", max_concurrency=4, workers=(0, 1))
async def meet(directory: str, n: int):
    import pathlib

    place = pathlib.Path(directory)
    (place / str(n)).touch()
    while len(list(place.iterdir())) < 4:
        await asyncio.sleep(0.01)
    return n


@Endpoint(name="sleeper")
def sleep(directory: str):
    import pathlib

    (pathlib.Path(directory) / "begun").touch()
    time.sleep(600)


@api.post("/buy")
async def buy(item: str, n: int = 1):
    return await take(item, n)


@api.get("/price/{item}")
def price(item: str, times: int = 1) -> dict:
    return {"price": len(item) * times}
'''
MAIN = """
import asyncio

from app import OutOfStock, Shelf, take, words


async def main():
    print(await take("tea", 2), [word async for word in words("x y")])
    shelf = Shelf(rows=3)
    print(await shelf.put("a"), await shelf.put("b"))
    try:
        await take("tea", 5)
    except OutOfStock as error:
        print(error.left)


asyncio.run(main())
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    project = tmp_path_factory.mktemp("flash") / "program"
    project.mkdir()
    (project / "app.py").write_text(textwrap.dedent(APP))
    (project / "requirements.txt").write_text("runpod-flash\n")
    return build_project(project, target="here").archive


@pytest.fixture
def server(built: Path, host_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HandlerServer]:
    monkeypatch.setenv("FLAME_HOST_ROOT", str(host_root))
    monkeypatch.setenv("FLAME_ENDPOINT_KEY", TOKEN)  # what clients of endpoints show
    with HandlerServer(built, token=TOKEN) as server:
        yield server


def ask(url: str, body: Any = None) -> tuple[int, Any]:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", "Authorization": f"Bearer {TOKEN}"})
    try:
        with urllib.request.urlopen(request, timeout=60) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


def job(server: HandlerServer, resource: str, **given: Any) -> Any:
    status, answer = ask(f"{server.url_of(resource)}/runsync", {"input": given})
    assert status == 200
    return answer


def until_there(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_the_archive_has_their_name_and_nothing_of_theirs(built: Path) -> None:
    with tarfile.open(built) as tar:
        names = {name for name in tar.getnames() if name.partition("/")[0] in ("runpod_flash", "tetra_rp", "runpod")}
    assert names == {"runpod_flash/__init__.py", "tetra_rp/__init__.py"}


def test_jobs_requests_and_errors_are_what_the_program_says(server: HandlerServer) -> None:
    assert job(server, "cpu_worker", function_name="take", item="tea", n=2)["output"] == {"took": 2}
    failed = job(server, "cpu_worker", function_name="take", item="tea", n=7)
    assert failed["status"] == "FAILED"
    assert json.loads(failed["error"])["error_type"] == "app.OutOfStock"
    assert job(server, "pipeline", item="tea")["output"] == {"took": 3, "left": 3, "words": ["a", "b"]}
    assert ask(f"{server.url}/buy", {"item": "tea", "n": 3}) == (200, {"took": 3})
    assert ask(f"{server.url}/shop-api/price/tea?times=2") == (200, {"price": 6})
    assert ask(f"{server.url}/shop-api/price/tea?times=x")[0] == 422
    status, told = ask(f"{server.url}/buy", {"item": "tea", "n": 9})
    assert (status, told["error_type"]) == (500, "app.OutOfStock")
    assert ask(f"{server.url}/shop-api/ping") == (200, {"status": "healthy"})


def test_the_handler_of_routes_is_a_server_of_its_own(built: Path, tmp_path: Path) -> None:
    """As the platform starts it: a bare interpreter, the archive, and a port."""
    shutil.unpack_archive(built, tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    variables = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "PORT": str(port)}
    order = [sys.executable, "-I", "-S", "handler_shop-api.py"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(order, cwd=tmp_path, env=variables, stdout=log, stderr=log)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 60
        while True:
            try:
                assert ask(f"{url}/health") == (200, {"status": "healthy"})
                break
            except urllib.error.URLError:
                assert process.poll() is None, (tmp_path / "log").read_text()
                assert time.monotonic() < deadline
                time.sleep(0.05)
        assert ask(f"{url}/price/tea?times=2") == (200, {"price": 6})
        assert ask(f"{url}/price/tea?times=x")[0] == 422
        job = {"input": {"function_name": "price", "input": {"item": "tea"}}}  # of another endpoint
        assert ask(f"{url}/runsync", job) == (200, {"status": "COMPLETED", "output": {"price": 3}})
    finally:
        process.terminate()
        process.wait(30)


def test_a_stream_comes_in_pieces_and_is_the_output_in_the_end(server: HandlerServer) -> None:
    url = server.url_of("words")
    id = ask(f"{url}/run", {"input": {"text": "a b c d"}})[1]["id"]
    pieces: list[Any] = []
    while (answer := ask(f"{url}/stream/{id}")[1])["status"] != "COMPLETED" or answer["stream"]:
        pieces += [piece["output"] for piece in answer["stream"]]
    assert pieces == answer["output"] == ["a", "b", "c", "d"]
    assert job(server, "words", text="x")["output"] == ["x"]
    assert job(server, "words", text="")["output"] == []


def test_four_jobs_at_once_meet(server: HandlerServer, tmp_path: Path) -> None:
    place = tmp_path / "place"
    place.mkdir()
    with ThreadPoolExecutor(4) as threads:
        answers = list(threads.map(lambda n: job(server, "meeting", directory=str(place), n=n)["output"], range(4)))
    assert answers == [0, 1, 2, 3]


@pytest.mark.parametrize("resource", ["sleeper", "words"])
def test_a_running_job_can_be_taken_back(server: HandlerServer, tmp_path: Path, resource: str) -> None:
    url = server.url_of(resource)
    given = {"directory": str(tmp_path)} if resource == "sleeper" else {"text": "a " * 100_000}
    id = ask(f"{url}/run", {"input": given})[1]["id"]
    if resource == "sleeper":
        until_there(tmp_path / "begun")
    else:
        assert ask(f"{url}/stream/{id}")[1]["stream"]
    assert ask(f"{url}/cancel/{id}", {})[1]["status"] == "CANCELLED"
    assert ask(f"{url}/status/{id}")[1]["status"] == "CANCELLED"


def test_the_program_runs_as_a_program_with_workers_of_this_machine(project: Path, host_root: Path) -> None:
    (project / "app.py").write_text(textwrap.dedent(APP))
    (project / "main.py").write_text(MAIN)
    order = [str(Path(sys.executable).with_name("flame")), "run", "main.py"]
    variables = {**os.environ, "FLAME_HOST_ROOT": str(host_root)}
    done = subprocess.run(order, cwd=project, env=variables, capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.splitlines() == ["{'took': 2} ['x', 'y']", "1 2", "3"], done.stderr


def test_a_function_of_the_same_worker_is_awaited_or_not_as_the_program_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_SERVED_RESOURCE", "one-worker")

    @remote(LiveServerless(name="one-worker"))
    def three() -> int:
        return 3

    @remote(LiveServerless(name="one-worker"))
    async def four() -> int:
        return 4

    class Base:
        def inherited(self) -> int:
            return 5

    @remote(LiveServerless(name="one-worker"))
    class Six(Base):
        def six(self) -> int:
            return self.inherited() + 1

        async def seven(self) -> int:
            return self.six() + 1

    async def calls() -> list[int]:
        plain = three()
        six = Six()
        return [plain, await three(), await four(), await six.inherited(), six.six(), await six.six(), await six.seven()]

    assert asyncio.run(calls()) == [3, 3, 4, 5, 6, 6, 7]
    assert three() == 3
    assert Six().six() == 6


def test_a_client_says_what_is_missing_where_no_url_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAME_ENDPOINTS", raising=False)
    with pytest.raises(EndpointError, match=r"with image='vllm' is deployed by the platform(.|\n)*FLAME_ENDPOINTS"):
        asyncio.run(Endpoint(name="v", image="vllm").runsync({}))


def test_a_client_gives_jobs_and_requests_to_an_endpoint_that_runs(server: HandlerServer, monkeypatch: pytest.MonkeyPatch) -> None:
    urls = {name: server.url_of(name) for name in server.manifest["resources"]}
    monkeypatch.setenv("FLAME_ENDPOINTS", json.dumps(urls))

    async def use() -> Any:
        words, shop = Endpoint(id="words"), Endpoint(id="shop-api")
        job = await (await words.run({"text": "a b"})).wait(60)
        done = await words.runsync({"text": "c"})
        return job.output, done.output, done.done, await shop.get("/price/tea"), await shop.post("/buy", {"item": "x", "n": 2})

    assert asyncio.run(use()) == (["a", "b"], ["c"], True, {"price": 3}, {"took": 2})
    with pytest.raises(EndpointError, match="answered 422"):
        asyncio.run(Endpoint(id="shop-api").get("/price/tea?times=x"))
