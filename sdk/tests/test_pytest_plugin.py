"""The fixtures we give to users' own tests."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = """
import os

def double(x):
    return 2 * x

def test_runner(flame_runner, flame_engine):
    assert flame_runner.service(double)(2).get() == 4
    assert flame_runner.endpoint == flame_engine + ":"

def test_several(make_flame_runner):
    one, two = make_flame_runner("one"), make_flame_runner("two")
    assert one.submit(double, two.submit(double, 1)).get() == 4
"""


def run(project: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options]
    return subprocess.run(command, cwd=project, capture_output=True, text=True, timeout=60, env=dict(os.environ))


@pytest.mark.parametrize("options", [(), ("--flame-engine=local",)])
def test_the_fixtures_give_open_runners_that_are_closed_again(options: tuple[str, ...], write: Callable[..., Path], project: Path) -> None:
    write("test_mine.py", TESTS)
    done = run(project, *options)
    assert "2 passed" in done.stdout, done.stdout


def test_an_engine_that_is_missing_is_told(write: Callable[..., Path], project: Path) -> None:
    write("test_mine.py", TESTS)
    done = run(project, "--flame-engine=nowhere")
    assert done.returncode == 1
    assert "no engine named 'nowhere'" in done.stdout


def test_a_fixture_sends_the_project_as_the_program_would(write: Callable[..., Path], project: Path) -> None:
    write("pyproject.toml", '[project]\nname = "mine"\nversion = "1"\n')
    write("words.txt", "one two")
    write("work.py", "from pathlib import Path\ndef count():\n    return len((Path(__file__).parent / 'words.txt').read_text().split())\n")
    test = "import work\ndef test_it(flame_project_runner):\n    assert flame_project_runner.service(work.count)().get() == 2\n"
    write("tests/test_mine.py", test)
    done = run(project, "--rootdir=.", "--import-mode=importlib", "-o", "pythonpath=.")
    assert "1 passed" in done.stdout, done.stdout
