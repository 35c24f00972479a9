"""What is seen at work: on a terminal, in a log, in a notebook."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def shown(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FLAME_PROGRESS")


PROGRAM = """
import logging, sys, time
from flamepy import Runner
logging.basicConfig(level="INFO")
def work(n):
    time.sleep(0.02)
    if n % 20 == 0:
        print("worker at", n)
    return n
with Runner("seen", package=False) as rr:
    for n in rr.service(work).map(range(100)):
        if n % 30 == 0:
            print("program at", n)
            logging.info("log at %d", n)
"""


def on_a_terminal(program: str, project: Path) -> list[str]:
    """What stands on the terminal when the program has ended, as lines."""
    (project / "main.py").write_text(program)
    leader, follower = pty.openpty()
    done = subprocess.Popen(
        [sys.executable, "main.py"], cwd=project, stdout=follower, stderr=follower, env={**os.environ, "COLUMNS": "100"}
    )
    os.close(follower)
    received = b""
    while True:
        try:
            part = os.read(leader, 1 << 16)
        except OSError:  # the program has closed its end
            break
        if not part:
            break
        received += part
    os.close(leader)
    assert done.wait(60) == 0
    assert b"\xe2\x96\x88" in received  # a bar was drawn
    return [_shown(line) for line in received.decode().split("\n")]


def _shown(line: str) -> str:
    """A line after carriage returns and erasures."""
    cells, position = "", 0
    for part in re.split(r"(\r|\x1b\[K)", line):
        if part == "\r":
            position = 0
        elif part == "\x1b[K":
            cells = cells[:position]
        else:
            cells = cells[:position] + part + cells[position + len(part) :]
            position += len(part)
    return cells


def test_no_line_is_glued_to_the_bar_and_the_bar_is_gone_at_the_end(project: Path) -> None:
    lines = on_a_terminal(PROGRAM, project)
    texts = [line for line in lines if line]
    expected = {*(f"program at {n}" for n in range(0, 100, 30)), *(f"INFO:root:log at {n}" for n in range(0, 100, 30))}
    assert expected <= set(texts), texts
    assert sum("worker at" in text for text in texts) == 5
    for text in texts:
        assert re.fullmatch(r"(program at \d+|INFO:root:log at \d+|\(work \d+\) worker at \d+)", text), text


def test_a_long_installation_is_said_in_a_log_once_and_with_its_time(capsys: pytest.CaptureFixture[str]) -> None:
    import time

    from flamepy._calls.activity import Activity

    from flame_host.api import Event

    activity = Activity()
    activity.observe(Event("provision.install", 0.0, detail="my-app"))
    until = time.monotonic() + 30
    said = ""
    while "installing" not in said and time.monotonic() < until:
        time.sleep(0.05)
        said += capsys.readouterr().err
    activity.observe(Event("executor.ready", 0.0))
    said += capsys.readouterr().err
    assert re.fullmatch(r"flame: my-app: installing dependencies …\nflame: my-app: installing dependencies took \d+ s\n", said)


def test_what_is_quick_is_not_mentioned(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from flamepy._calls.activity import Activity

    activity = Activity()
    with activity.of("my-app: packing"):
        pass
    monkeypatch.setenv("FLAME_PROGRESS", "0")
    with activity.of("my-app: packing"):
        assert activity._thread is None or not activity._text
    assert capsys.readouterr().err == ""
