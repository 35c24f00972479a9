"""Under a data-only serializer, functions, classes and dataclasses of modules and of the main script arrive; and Python in any spelling."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from local_index import PYTHON, run, uv

SHAPES = """
from dataclasses import dataclass, field


@dataclass
class Box:
    sides: tuple
    tags: list = field(default_factory=list)


class Counter:
    def __init__(self, start=0):
        self.total = start

    def add(self, box):
        self.total += sum(box.sides)
        return Box((self.total,), box.tags)


def volume(box):
    return box.sides[0] * box.sides[1] * box.sides[2]
"""

MAIN = """
import json, sys
from dataclasses import dataclass
from flamepy import Runner
from shapes import Box, Counter, volume


@dataclass(frozen=True)
class Point:
    x: int
    box: Box = None

    def plus(self, other):
        return Point(self.x + other.x, other.box)


def move(point, other):
    return point.plus(other)


class Walker:
    def __init__(self):
        self.at = Point(0)

    def go(self, point):
        self.at = self.at.plus(point)
        return self.at


if __name__ == "__main__":
    with Runner("data", **json.loads(sys.argv[1])) as rr:
        moved = rr.service(move)(Point(1), Point(2, Box((1, 2, 3), ["a"])))
        assert rr.service(move)(moved, Point(4)).get() == Point(7), "a result as an argument"
        assert moved.get() == Point(3, Box((1, 2, 3), ["a"])) and type(moved.get().box) is Box
        assert rr.service(Counter(10)).add(Box((1, 2))).get() == Box((13,))
        assert rr.service(Counter, stateful=True).add(Box((1, 2))).get() == Box((3,))
        walker = rr.service(Walker, stateful=True)
        assert [walker.go(Point(2)).get() for _ in range(2)] == [Point(2), Point(4)]
        assert rr.service(volume)(Box((2, 3, 4))).get() == 24
        print(rr.service(volume)(Box((2, 3, 5))).get())
"""


@pytest.fixture
def place(tmp_path: Path) -> Path:
    (tmp_path / "project").mkdir()
    (tmp_path / "project" / "shapes.py").write_text(SHAPES)
    (tmp_path / "project" / "main.py").write_text(MAIN)
    return tmp_path / "project"


def test_functions_classes_and_dataclasses_travel_where_pickles_are_denied(place: Path, installing: dict[str, str]) -> None:
    options = {"serializers": ["msgpack"], "policy": {"pickle": "deny"}}
    assert run([PYTHON, "main.py", json.dumps(options)], place, installing) == "30\n"


WHICH = """
import json, sys
from flamepy import Runner


def which():
    import sys
    return [sys.version_info[:2], sys.base_prefix]


if __name__ == "__main__":
    with Runner("which", python_version=sys.argv[1] or None) as rr:
        print(json.dumps(rr.service(which)().get()))
"""


@pytest.mark.parametrize("spelling", ["{0}.{1}", "python{0}.{1}", "=={0}.{1}.*", ">={0}.{1}", "path", "path in .python-version"])
def test_a_python_in_any_spelling(spelling: str, tmp_path: Path, installing: dict[str, str]) -> None:
    venv = tmp_path / "venv"
    run([uv(), "venv", "-q", "--python", PYTHON, str(venv)], tmp_path, installing)
    place = tmp_path / "project"
    place.mkdir()
    (place / "main.py").write_text(WHICH)
    wanted = spelling.format(*sys.version_info[:2]) if "path" not in spelling else str(venv / "bin" / "python")
    if "." in spelling.partition(" in ")[2]:
        (place / ".python-version").write_text(wanted + "\n")
        wanted = ""
    assert json.loads(run([PYTHON, "main.py", wanted], place, installing)) == [list(sys.version_info[:2]), sys.base_prefix]
