"""What a task imports is what the same code imports in its author's checkout: files, distributions, versions; and nobody else's."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from local_index import PRIVATE, PYTHON, Index, run, uv
from project_shapes import SHAPES, Shape

OURS = ("flame-", "uv", "pip", "cloudpickle", "flamepy")


def in_the_checkout(shape: Shape, place: Path, environment: dict[str, str]) -> Any:
    root, program = place / shape.root, place / shape.program
    where = root / shape.where
    python = place / "venv" / "bin" / "python"
    if shape.reference in ("requirements", "editable"):
        run([uv(), "venv", "-q", "--python", PYTHON, str(place / "venv")], place, environment)
        wanted = ["-r", "requirements.txt"] if shape.reference == "requirements" else ["-e", "."]
        run([uv(), "pip", "install", "-q", "--python", str(python), *wanted], root, environment)
        return json.loads(run([str(python), str(program), "--here"], where, environment))
    options = ["--script"] if shape.head else ["--no-project", "--isolated"] if shape.reference == "script" else ["--project", str(root)]
    return json.loads(run([uv(), "run", "-q", "--python", PYTHON, *options, str(program), "--here"], where, environment))


def comparable(found: Any, base: Path) -> dict[str, Any]:
    files, distributions, scripts, _ = found

    def short(path: str) -> str:
        trees = path.partition("/trees/")[2].partition("/")[2]
        return path if path.startswith("site-packages") else trees or os.path.relpath(path, base)

    return {
        "files": {name: short(path) for name, path in files.items()},
        "distributions": {name: version for name, version in distributions.items() if not name.startswith(OURS)},
        "entry points": scripts,
    }


@pytest.mark.parametrize("name", SHAPES)
def test_a_task_imports_what_uv_run_imports_in_the_checkout(name: str, tmp_path: Path, index: Index, installing: dict[str, str]) -> None:
    shape = SHAPES[name]
    place, checkout = tmp_path / "user", tmp_path / "checkout"
    shape.write(place)
    if shape.lock:
        run([uv(), "lock", "-q", "--python", PYTHON], place / shape.root, installing)
    shutil.copytree(place, checkout)
    expected = comparable(in_the_checkout(shape, checkout, installing), checkout)
    index.asked.clear()
    where = place / shape.root / shape.where
    found = json.loads(run([PYTHON, str(place / shape.program)], where, installing))
    # A package whose base is the project itself names files from there; the checkout's are named from above it.
    assert _below(comparable(found, place), shape) == _below(expected, shape)
    assert not set(index.asked) & set(PRIVATE), "a private name was looked up on the index"
    seen = [entry for entry in os.listdir(where) if entry != "__pycache__" and not entry.endswith(".egg-info")]  # what building leaves
    assert set(found[3]) >= set(seen) or shape.where == "..", "the task's directory holds the files of the user's"


def _below(found: dict[str, Any], shape: Shape) -> dict[str, Any]:
    prefix = "" if shape.root == "." else shape.root + "/"
    return {**found, "files": {name: path.removeprefix(prefix) for name, path in found["files"].items()}}


PIP = [name for name, shape in SHAPES.items() if shape.private and shape.with_pip]


@pytest.mark.parametrize("name", [*PIP[:1], "workspace", "path sources"])
def test_pip_looks_up_no_private_name_either(name: str, tmp_path: Path, index: Index, installing: dict[str, str]) -> None:
    shape = SHAPES[name]
    shape.write(tmp_path)
    index.asked.clear()
    where = tmp_path / shape.root
    found = json.loads(run([PYTHON, str(tmp_path / shape.program), '{"installers": ["pip"]}'], where, installing))
    assert not set(index.asked) & set(PRIVATE)
    assert "99.0" not in found[1].values()
    assert set(shape.private) - {"rootproj"} <= found[1].keys()


def test_pip_refuses_by_name_what_it_cannot_do(tmp_path: Path, installing: dict[str, str]) -> None:
    shape = SHAPES["locked"]
    shape.write(tmp_path)
    run([uv(), "lock", "-q", "--python", PYTHON], tmp_path, installing)
    said = run([PYTHON, "main.py", '{"installers": ["pip"]}'], tmp_path, installing, fails=True)
    assert "uv.lock decides the versions" in said
    (tmp_path / "uv.lock").unlink()
    text = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace("constraint-", "override-"))
    said = run([PYTHON, "main.py", '{"installers": ["pip"]}'], tmp_path, installing, fails=True)
    assert "[tool.uv] override-dependencies" in said


def test_a_lock_that_is_out_of_date_names_the_command(tmp_path: Path, installing: dict[str, str]) -> None:
    shape = SHAPES["locked"]
    shape.write(tmp_path)
    run([uv(), "lock", "-q", "--python", PYTHON], tmp_path, installing)
    text = (tmp_path / "pyproject.toml").read_text()
    (tmp_path / "pyproject.toml").write_text(text.replace('"beta"', '"beta", "gamma"'))
    said = run([PYTHON, "main.py"], tmp_path, installing, fails=True)
    assert "uv.lock does not fit" in said
    assert "uv lock" in said


def test_a_path_that_is_not_there_is_not_replaced_from_the_index(tmp_path: Path, index: Index, installing: dict[str, str]) -> None:
    shape = SHAPES["path sources"]
    shape.write(tmp_path)
    shutil.rmtree(tmp_path / "liba")
    index.asked.clear()
    said = run([PYTHON, "main.py"], tmp_path / "proj", installing, fails=True)
    assert "../liba is not there" in said
    assert "liba" not in index.asked
