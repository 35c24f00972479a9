"""``flame build``, ``flame undeploy`` and ``flame run --handler`` as they are typed."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
from flamepy.cli import app
from typer.testing import CliRunner, Result

PROGRAM = """
from flamepy import CpuResource, remote

cpu = CpuResource(name="cpu 1")


@remote(cpu)
def double(number: int) -> int:
    return number * 2
"""

Write = Callable[..., Path]


def flame(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


@pytest.fixture(autouse=True)
def shell(project: Path, host_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the project's directory, with nothing configured."""
    for name in [name for name in os.environ if name.startswith("FLAME_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLAME_HOST_ROOT", str(host_root))
    monkeypatch.chdir(project)


@pytest.fixture
def program(write: Write) -> Path:
    return write(PROGRAM)


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_project_without_remote_functions_is_refused(project: Path) -> None:
    done = flame("build")
    assert done.exit_code == 1
    assert "no @remote function was found" in done.stderr
    assert not (project / ".flash").exists()


def test_every_problem_is_told_with_its_file_and_line(program: Path, write: Write) -> None:
    write({"a.py": "from flamepy import remote\n@remote(unknown)\ndef f(): ...\n", "b.py": "def f(:\n"})
    done = flame("build")
    assert done.exit_code == 1
    assert "a.py:2: " in done.stderr
    assert "b.py:1: " in done.stderr
    assert "Traceback" not in done.output


def test_with_json_a_failure_is_json_too(program: Path, write: Write) -> None:
    write({"b.py": "def f(:\n"})
    done = flame("build", "--json")
    assert done.exit_code == 1
    said = json.loads(done.stdout)
    assert [(problem["file"], problem["line"]) for problem in said["problems"]] == [("b.py", 1)]
    assert said["error"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--python", "latest"), "--python 3.11"),
        (("--output", "archive.zip"), "--output end in .tar.gz"),
    ],
)
def test_an_option_that_cannot_be_meant_is_refused_with_what_to_write(program: Path, options: tuple[str, ...], words: str) -> None:
    done = flame("build", *options)
    assert done.exit_code == 1
    assert words in done.stderr


def test_running_needs_a_program_or_an_archive(program: Path) -> None:
    assert flame("run").exit_code == 2
    assert flame("run", "--handler", "archive.tar.gz", "app.py").exit_code == 2


def test_serving_an_archive_that_is_not_there_says_how_to_make_one(project: Path) -> None:
    done = flame("run", "--handler", "archive.tar.gz")
    assert done.exit_code == 1
    assert "flame build" in done.stderr


def test_serving_at_a_port_that_is_taken_says_what_to_do(program: Path) -> None:
    assert flame("build").exit_code == 0
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = flame("run", "--handler", ".flash/archive.tar.gz", "--port", str(taken.getsockname()[1]))
    assert done.exit_code == 1
    assert "cannot listen at 127.0.0.1:" in done.stderr
    assert "--port" in done.stderr


# ---------------------------------------------------------------------------------------------------- what is done


def test_a_build_tells_resources_sizes_digest_and_what_to_do_next(program: Path) -> None:
    done = flame("build")
    assert done.exit_code == 0
    line = next(line for line in done.stdout.splitlines() if line.startswith("cpu 1"))
    assert (line.split()[2], line.split()[-1]) == ("CpuResource", "double")
    assert "sha256 " in done.stdout
    assert "KiB" in done.stdout
    assert "flame run --handler .flash/archive.tar.gz" in done.stdout
    assert "importing 1 handlers" in done.stderr


def test_with_json_standard_output_is_the_report_alone(program: Path) -> None:
    report = json.loads(flame("build", "--json").stdout)
    assert report["manifest"]["function_registry"] == {"double": "cpu 1"}
    assert Path(report["archive"]) == program / ".flash" / "archive.tar.gz"
    assert len(report["digest"]) == 64
    assert report["size"] == Path(report["archive"]).stat().st_size


def test_files_can_be_left_out_by_several_patterns(program: Path, write: Write) -> None:
    write(dict.fromkeys(("data.bin", "notes.txt", "more.txt", "kept.json"), "x"))
    report = json.loads(flame("build", "--json", "--exclude", "*.bin,notes.txt", "--exclude", "more.*", "--exclude", "none.*").stdout)
    with tarfile.open(report["archive"]) as tar:
        names = set(tar.getnames())
    assert "kept.json" in names
    assert not names & {"data.bin", "notes.txt", "more.txt"}
    assert any("none.*" in note for note in report["notes"])


def test_the_archive_can_go_elsewhere_and_be_removed_again(program: Path, tmp_path: Path) -> None:
    target = tmp_path / "out" / "mine.tar.gz"
    assert flame("build", "-o", str(target)).exit_code == 0
    assert target.is_file()
    removed = json.loads(flame("undeploy", "--json").stdout)["removed"]
    assert str(program / ".flash" / "build.json") in removed
    assert not (program / ".flash").exists()
    assert flame("undeploy").stdout == "nothing to remove\n"


def test_options_after_a_program_are_the_programs_own(write: Write) -> None:
    write({"script.py": "import sys; print(sys.argv[1:])"})
    order = [str(Path(sys.executable).with_name("flame")), "run", "script.py", "--port", "1", "--json"]
    done = subprocess.run(order, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == "['--port', '1', '--json']\n"
