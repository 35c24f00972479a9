"""What a user gets: wheels in an environment that was empty, and nothing of this checkout."""

from __future__ import annotations

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RELEASE = runpy.run_path(str(ROOT / ".ci" / "release.py"))
Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("dist")
    RELEASE["build"](target)
    return target


@pytest.fixture(scope="module")
def installed(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of an environment's commands: `python -m venv` and `pip install flame-host-sdk`, as the README says."""
    where = tmp_path_factory.mktemp("user") / "venv"
    subprocess.run([sys.executable, "-m", "venv", where], check=True)
    command = [where / "bin" / "pip", "install", "-q", "--find-links", wheels, "--only-binary", ":all:", "flame-host-sdk[flmctl]"]
    subprocess.run(command, check=True, timeout=600)
    return where / "bin"


@pytest.fixture
def run(installed: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Run a command of that environment in a project of its own; a status that is not expected fails the test with its output."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("FLAME_", "PYTHON", "VIRTUAL_ENV"))}
    variables = {
        **clean,
        "HOME": str(tmp_path / "home"),
        "FLAME_HOST_ROOT": str(tmp_path_factory.getbasetemp() / "wheels-root"),
        "PATH": f"{installed}:{os.environ['PATH']}",
    }
    (tmp_path / "home").mkdir()
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "front-page"\nversion = "1"\n')

    def run(*command: str, status: int = 0, cwd: Path = tmp_path, **more: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [installed / command[0], *command[1:]], cwd=cwd, env={**variables, **more}, capture_output=True, text=True, timeout=110
        )
        assert done.returncode == status, (command, done.stdout, done.stderr)
        assert "Traceback" not in done.stderr
        return done

    return run


def test_every_distribution_holds_all_of_its_files_and_says_what_it_is(wheels: Path) -> None:
    assert list(RELEASE["problems"](wheels)) == []


def test_a_version_that_differs_anywhere_is_noticed(tmp_path: Path) -> None:
    for path in RELEASE["files_with_versions"]():
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    (tmp_path / ".ci").mkdir()
    shutil.copy(ROOT / ".ci" / "release.py", tmp_path / ".ci")
    script = [sys.executable, str(tmp_path / ".ci" / "release.py")]
    for plugin in (ROOT / "plugins").iterdir():
        assert (tmp_path / "plugins" / plugin.name).is_dir()
    subprocess.run([*script, "version", "1.2.3"], check=True, capture_output=True)
    assert subprocess.run([*script, "agree", "v1.2.3"], capture_output=True, text=True).stdout.strip() == "1.2.3"
    assert "the tag is v9.9.9" in subprocess.run([*script, "agree", "v9.9.9"], capture_output=True, text=True).stderr
    changed = tmp_path / "plugins" / "flame-fetch-s3" / "pyproject.toml"
    changed.write_text(changed.read_text().replace("1.2.3", "1.2.4", 1))
    assert "plugins/flame-fetch-s3" in subprocess.run([*script, "agree"], capture_output=True, text=True).stderr


@pytest.mark.parametrize("page", ["README.md", "sdk/README.md"])
def test_the_programs_of_the_readme_print_what_they_say(page: str, run: Run, tmp_path: Path) -> None:
    for program in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL):
        (tmp_path / "main.py").write_text(program)
        assert run("python", "main.py").stdout.splitlines() == re.findall(r"print\(.*\)\s+# (.*)", program)


def test_every_command_answers(run: Run, tmp_path: Path) -> None:
    (tmp_path / "main.py").write_text("print('hello')\n")
    assert re.fullmatch(r"flame \d+\.\d+\.\d+ \(Python [\d.]+\)", run("flame", "--version").stdout.strip())
    assert "flame-host" in run("flame-host", "--version").stdout
    for name in ("flame", "flame-host", "flmctl"):
        helped = run(name, "-h").stdout
        commands = re.findall(r"(?m)^  ([a-z-]+)  +\S", helped.partition("Commands:")[2])
        assert commands, helped
        for command in commands:
            assert "Usage" in run(name, command, "-h").stdout
        assert "did you mean" in run(name, commands[0] + "x", status=2).stderr.lower()
        # What --show-completion prints, without guessing the shell from the processes above.
        assert "complete" in run(name, **{f"_{name.replace('-', '_').upper()}_COMPLETE": "source_bash"}).stdout
    assert json.loads(run("flame", "doctor", "--json").stdout)["ok"] is True
    assert {record["status"] for record in json.loads(run("flame", "plugins", "--json").stdout)["plugins"]} == {"active"}
    run("flame", "plugins", "explain")
    run("flame", "env", "list")
    run("flame", "env", "prune", "--dry-run")
    assert run("flame", "run", "main.py").stdout == "hello\n"
    assert "+ main.py" in run("flame", "pack", "--explain").stdout
    assert json.loads(run("flame", "pack", "--json", "-o", "out.tar.gz").stdout)["schema_version"] == 1
    assert "flmrun" in run("flmctl", "list", "-a").stdout
    assert "shim: Host" in run("flame-host", "template").stdout
    assert "flame-host[serve]" in run("flame-host", "serve", status=3).stderr
    assert "no server answers" in run("flame-host", "status", "--health", "127.0.0.1:9", status=1).stderr


def test_a_project_builds_into_an_archive_of_handlers(run: Run, tmp_path: Path) -> None:
    project = tmp_path / "serverless"
    shutil.copytree(ROOT / "examples" / "serverless", project, ignore=shutil.ignore_patterns(".flash", "__pycache__"))
    built = json.loads(run("flame", "build", "--json", cwd=project).stdout)
    assert Path(built["archive"]).is_file()
    run("flame", "undeploy", cwd=project)


def test_versions_that_pip_would_not_have_put_together_are_refused_at_the_first_runner(run: Run, tmp_path: Path, installed: Path) -> None:
    program = (
        "import flame_host\nflame_host.__version__ = '9.9.9'\nfrom flamepy import Runner\ntry:\n    Runner('x', package=False).open()\n"
    )
    program += "except ValueError as error:\n    print(error)\n"
    (tmp_path / "main.py").write_text(program)
    said = run("python", "main.py").stdout
    assert "flame-host is 9.9.9" in said
    assert "pip install --upgrade" in said
