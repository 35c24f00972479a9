"""Where a dependency comes from is what the project says: locks, hashes, explicit indexes, URLs, git; and no stranger by our name."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from local_index import PYTHON, Index, run, uv
from project_shapes import package

from flame_host.testing.installers import make_wheel

PROGRAM = """
import json, sys
from flamepy import Runner


def versions():
    import importlib.metadata
    found = {one.metadata["Name"]: one.version for one in importlib.metadata.distributions()}
    return {name: found[name] for name in ("alpha", "beta", "fromgit", "private") if name in found}


if __name__ == "__main__":
    with Runner("sources", **json.loads(sys.argv[1] if len(sys.argv) > 1 else "{}")) as rr:
        print(json.dumps(rr.service(versions)().get()))
"""
Case = tuple[Callable[[Path, Index, dict[str, str]], None], dict[str, str], str]


def needs(name: str, source: str, rest: str = "") -> str:
    return package("project", "1", dependencies=f'"{name}"', build="", rest=f"[tool.uv.sources]\n{name} = {{{source}}}\n{rest}")


def pylock(place: Path, index: Index, environment: dict[str, str]) -> None:
    (place / "wanted.in").write_text("beta\nalpha<2\n")
    command = [uv(), "pip", "compile", "-q", "--format", "pylock.toml", "-o", "pylock.toml", "wanted.in", "--python", PYTHON]
    run(command, place, environment)


def hashes(place: Path, index: Index, environment: dict[str, str]) -> None:
    digest = hashlib.sha256((index.directory / "alpha-1.5-py3-none-any.whl").read_bytes()).hexdigest()
    (place / "requirements.txt").write_text(f"--require-hashes\nalpha==1.5 \\\n    --hash=sha256:{digest}\n")


def explicit(place: Path, index: Index, environment: dict[str, str]) -> None:
    wheels = place.parent / "wheels"
    make_wheel(wheels, "private", "1.0")
    make_wheel(wheels, "alpha", "77.0")
    make_wheel(index.directory, "private", "99.0")
    links = f'[[tool.uv.index]]\nname = "own"\nurl = "{wheels}"\nformat = "flat"\nexplicit = true\n'
    (place / "pyproject.toml").write_text(needs("private", 'index = "own"', links).replace('"private"]', '"private", "alpha"]'))


def url(place: Path, index: Index, environment: dict[str, str]) -> None:
    address = index.url.replace("simple/", "alpha-1.0-py3-none-any.whl")
    (place / "pyproject.toml").write_text(needs("alpha", f'url = "{address}"'))


def git(place: Path, index: Index, environment: dict[str, str]) -> None:
    library = place.parent / "library"
    library.mkdir()
    (library / "fromgit.py").write_text("")
    make_wheel(index.directory, "fromgit", "99.0")
    for version, commit in (("3.1", ["tag", "v1"]), ("4.0", ["status", "-s"])):
        (library / "pyproject.toml").write_text(package("fromgit", version))
        for command in (["init", "-q"], ["add", "-A"], ["-c", "user.name=x", "-c", "user.email=x@y", "commit", "-qm", "x"], commit):
            subprocess.run(["git", *command], cwd=library, check=True, capture_output=True)
    (place / "pyproject.toml").write_text(needs("fromgit", f'git = "{library.as_uri()}", tag = "v1"'))


CASES: dict[str, Case] = {
    "pylock.toml alone": (pylock, {"alpha": "1.5", "beta": "1.0"}, "pylock.toml decides the versions"),
    "hashes": (hashes, {"alpha": "1.5"}, ""),
    "an explicit index": (explicit, {"private": "1.0", "alpha": "2.0"}, r"\[tool.uv.sources\] private \(index\)"),
    "a URL": (url, {"alpha": "1.0"}, ""),
    "git": (git, {"fromgit": "3.1"}, ""),
}


@pytest.mark.parametrize("name", CASES)
def test_a_dependency_comes_from_where_the_project_says(name: str, tmp_path: Path, index: Index, installing: dict[str, str]) -> None:
    write, expected, refusal = CASES[name]
    place = tmp_path / "project"
    place.mkdir()
    (place / "main.py").write_text(PROGRAM)
    write(place, index, installing)
    assert json.loads(run([PYTHON, "main.py"], place, installing)) == expected
    if refusal:
        assert re.search(refusal, run([PYTHON, "main.py", '{"installers": ["pip"]}'], place, installing, fails=True))
    else:
        assert json.loads(run([PYTHON, "main.py", '{"installers": ["pip"]}'], place, installing)) == expected
    if (place / "pyproject.toml").exists():
        run([uv(), "lock", "-q", "--python", PYTHON], place, installing)
        assert json.loads(run([PYTHON, "main.py"], place, installing)) == expected


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_wrong_hash_is_not_installed(installer: str, tmp_path: Path, installing: dict[str, str]) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    (tmp_path / "requirements.txt").write_text(f"alpha==1.5 --hash=sha256:{'0' * 64}\n")
    said = run([PYTHON, "main.py", json.dumps({"installers": [installer]})], tmp_path, installing, fails=True)
    assert "0" * 64 in said


@pytest.mark.parametrize("how", ["asked for", "below another"])
def test_a_flamepy_of_another_distribution_is_recognised_and_named(how: str, tmp_path: Path, installing: dict[str, str]) -> None:
    (tmp_path / "main.py").write_text(PROGRAM)
    foreign = make_wheel(tmp_path, "flamepy", "9.9")
    wanted = foreign.name
    if how == "below another":
        wanted = f"{make_wheel(tmp_path, 'delta', '1.0', requires=('flamepy',)).name}\n--find-links ."
    (tmp_path / "requirements.txt").write_text(f"./{wanted}\n")
    said = run([PYTHON, "main.py"], tmp_path, installing, fails=True)
    assert "the module flamepy comes from the distribution flamepy 9.9" in said
    assert "take flamepy out of the project's requirements" in said
