"""``flame init``, ``flame dev`` and ``flame deploy``: real servers, a change, a mistake, and nothing left."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
from flamepy.build import BuildError, build_project
from flamepy.build.beginning import begin
from flamepy.build.dev import DevServer
from flamepy.cli import app
from flamepy.deploy.plugin import DirectoryDeployer
from typer.testing import CliRunner, Result

from flame_host.api import Deployer, Release
from flame_host.testing.deployers import DeployerContract

TOKEN = "a token of these tests"
ECHO = """
from runpod_flash import Endpoint

@Endpoint(name="echo", cpu="cpu3c-1-2", workers=(0, 1))
def echo(text: str) -> str:
    "Say it again."
    return text
"""


@pytest.fixture(autouse=True)
def shell(host_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAME_HOST_ROOT", str(host_root))


def flame(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def ask(url: str, body: Any = None, **headers: str) -> str:
    data = None if body is None else json.dumps(body).encode()
    shown = {"Authorization": f"Bearer {TOKEN}"}
    request = urllib.request.Request(url, data, {"Content-Type": "application/json", **shown, **headers})
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())


def until(condition: Callable[[], bool], said: list[str]) -> None:
    import time

    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, said
        time.sleep(0.1)


class TestDirectoryDeployer(DeployerContract):
    @pytest.fixture
    def deployer(self, monkeypatch: pytest.MonkeyPatch) -> Deployer:
        monkeypatch.setenv("FLAME_ENDPOINT_KEY", TOKEN)
        return DirectoryDeployer()

    def answer_of(self, url: str, text: str) -> object:
        return json.loads(ask(f"{url}/runsync", {"input": {"text": text}}))["output"]

    @pytest.fixture
    def release(self, write, tmp_path: Path) -> Release:
        report = build_project(write(ECHO), target="here")
        return Release("contract-test", report.archive, report.digest, report.manifest, {"path": str(tmp_path / "served")})


def test_a_project_is_begun_only_where_nothing_is_lost(tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (there / "app.py").write_text("mine")
    with pytest.raises(BuildError, match=r"has app\.py already"):
        begin(there)
    assert [path.name for path in there.iterdir()] == ["app.py"]
    assert flame("init", str(there), "--force").exit_code == 0
    assert "Endpoint" in (there / "app.py").read_text()


def test_what_is_begun_can_be_checked_as_it_is(tmp_path: Path) -> None:
    begin(tmp_path / "new")
    report = json.loads(flame("build", "--check", "--json", str(tmp_path / "new")).stdout)
    assert report["manifest"]["function_registry"] == {"Counter": "counter", "greet": "greeter", "greeting": "api"}
    assert report["manifest"]["routes"] == {"api": {"GET /greetings/{name}": "greeting"}}


def test_a_directory_is_served_anew_after_a_change_and_as_it_was_after_a_mistake(write) -> None:
    root = write(ECHO)
    said: list[str] = []
    with DevServer(root, say=said.append, token=TOKEN) as dev:
        job = {"input": {"text": "a"}}
        assert json.loads(ask(f"{dev.url}/runsync", job))["output"] == "a"
        page = ask(dev.url, Accept="text/html")
        assert "echo(text: str)" in page
        assert "Say it again." in page
        write(ECHO.replace("return text", "return text * 2"))
        until(lambda: "served anew" in said, said)
        assert json.loads(ask(f"{dev.url}/runsync", job))["output"] == "aa"
        write(ECHO + "\ndef (:\n")
        until(lambda: any("cannot be built" in line for line in said), said)
        assert json.loads(ask(f"{dev.url}/runsync", job))["output"] == "aa"
        assert "not valid Python" in ask(dev.url, Accept="text/html")
        with pytest.raises(urllib.error.HTTPError):
            ask(f"{dev.url}/runsync", job, Origin="http://elsewhere.example")
        assert json.loads(ask(f"{dev.url}/runsync", job, Origin=dev.url))["output"] == "aa"  # the page's own


def test_a_change_that_does_not_end_to_be_imported_keeps_nobody_from_mending_it_or_from_leaving(write) -> None:
    root = write(ECHO)
    said: list[str] = []
    with DevServer(root, say=said.append, token=TOKEN) as dev:
        marks = root / "marks"
        forever = f"import pathlib, time\npathlib.Path({str(marks)!r}).touch()\ntime.sleep(600)\n"
        write(forever + ECHO)
        until(marks.exists, said)
        write(ECHO.replace("return text", "return text * 3"))
        until(lambda: "served anew" in said, said)
        assert json.loads(ask(f"{dev.url}/runsync", {"input": {"text": "a"}}))["output"] == "aaa"
        marks.unlink()
        write(forever + ECHO)
        until(marks.exists, said)
    assert not (root / ".flash" / ".build").exists()


def test_a_browser_is_let_in_by_the_address_with_the_token_and_by_nothing_else(write) -> None:
    with DevServer(write(ECHO), reload=False) as dev:
        jar = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        for url in (dev.url, f"{dev.url}/?token=wrong"):
            with pytest.raises(urllib.error.HTTPError, match="401"):
                jar.open(url, timeout=60)
        with jar.open(urllib.request.Request(dev.server.page_url, headers={"Accept": "text/html"}), timeout=60) as page:
            assert page.url == f"{dev.url}/"  # neither in the history nor in what pages are told
            assert "echo(text: str)" in page.read().decode()
        job = urllib.request.Request(f"{dev.url}/runsync", b'{"input": {"text": "a"}}', {"Content-Type": "application/json"})
        with jar.open(job, timeout=60) as answer:
            assert json.load(answer)["output"] == "a"


def test_deploying_serves_and_undeploying_ends_and_removes(write, tmp_path: Path) -> None:
    root = write(ECHO)
    place = tmp_path / "served"
    assert flame("deploy", str(root), "--to", "moon").exit_code == 1
    done = flame("deploy", str(root), "--json", "--name", "mine", "--option", f"path={place}")
    try:
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout)
        url, kept = told["endpoints"]["echo"], Path(told["token_file"])
        with pytest.raises(urllib.error.HTTPError, match="401"):
            ask(f"{url}/runsync", {"input": {"text": "there"}})
        assert (kept.stat().st_mode & 0o777, kept.parent.stat().st_mode & 0o777) == (0o600, 0o700)
        shown = f"Bearer {kept.read_text()}"
        assert json.loads(ask(f"{url}/runsync", {"input": {"text": "there"}}, Authorization=shown))["output"] == "there"
        assert (place / "mine").is_dir()
    finally:
        ended = flame("undeploy", str(root), "--json")
    assert json.loads(ended.stdout)["ended"] == ["mine at directory"]
    assert not (place / "mine").exists()
    assert not (root / ".flash").exists()
    with pytest.raises(urllib.error.URLError):
        ask(f"{url}/health")


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_a_deployment_that_is_killed_half_way_leaves_nothing_that_cannot_be_undeployed(write, tmp_path: Path, how: signal.Signals) -> None:
    root = write(ECHO)
    place = tmp_path / "served"
    order = [str(Path(sys.executable).with_name("flame")), "deploy", str(root), "--name", "mine", "--option", f"path={place}"]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(order, stdout=said, stderr=said)
    try:
        until((place / "mine" / "server.log").exists, [])
        process.send_signal(how)
        process.wait(60)
        ended = flame("undeploy", str(root), "--json")
    finally:
        process.kill()
        process.wait()
    assert ended.exit_code == 0, ended.output
    assert not (place / "mine").exists()
    assert not (root / ".flash").exists()
    mine = [each for each in psutil.process_iter(["cmdline"]) if str(place / "mine") in (each.info["cmdline"] or ())]
    assert psutil.wait_procs(mine, 10)[1] == []
