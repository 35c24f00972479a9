"""A type checker sees through ``@remote``: what is decorated keeps its types."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

api = pytest.importorskip("mypy.api")

PROGRAM = """
from collections.abc import Coroutine
from typing import Any, assert_type

from flamepy import CpuResource, ObjectFuture, Resource, remote

cpu = CpuResource(name="cpu")

@remote(cpu)
def count(text: str, least: int = 1) -> list[str]:
    return text.split()[:least]

@remote
def bare(number: int) -> float:
    return number / 2

@remote(Resource(name="other"), dependencies=["humanize"])
async def later(text: str) -> int:
    return len(text)

@remote(cpu)
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, number: int) -> int:
        return number

assert_type(count("a"), list[str])
assert_type(count.submit("a", least=2), ObjectFuture[list[str]])
assert_type(count.local("a"), list[str])
assert_type(bare(1), float)
assert_type(Counter(1).add(2), int)

async def main() -> None:
    assert_type(await later("a"), int)
"""

WRONG = """
count(1)              # [arg-type]
count("a", most=1)    # [call-arg]
bare("a")             # [arg-type]
Counter("a")          # [arg-type]
Counter().add("a")    # [arg-type]
remote(42)            # [call-overload]
"""


def check(text: str, place: Path) -> list[str]:
    (place / "program.py").write_text(text)
    options = ["--strict", "--no-error-summary", "--python-version", "3.11", "--cache-dir", str(place / "cache")]
    printed, problems, _ = api.run([*options, "--python-executable", sys.executable, str(place / "program.py")])
    assert not problems
    return [line for line in printed.splitlines() if "program.py" in line and ": error:" in line]


def test_wrong_calls_are_found(tmp_path: Path) -> None:
    first = PROGRAM.count("\n") + 1
    found = {int(line.split(":")[1]): line.rpartition("  ")[2] for line in check(PROGRAM + WRONG, tmp_path)}
    expected = {first + at: line.partition("# ")[2] for at, line in enumerate(WRONG.splitlines()) if "#" in line}
    assert found == expected


def test_what_is_decorated_keeps_its_types(tmp_path: Path) -> None:
    assert check(PROGRAM, tmp_path) == []
