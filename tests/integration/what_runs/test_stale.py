"""What decides what gets installed counts by its content: a change of it shows on the next run, whatever its name."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from local_index import PYTHON, Index, run
from project_shapes import package

from flame_host.testing.installers import make_wheel

PROGRAM = """
from flamepy import Runner


def versions():
    import importlib, json
    found = {}
    for name in ("alpha", "liba", "delta"):
        try:
            found[name] = importlib.import_module(name).VERSION
        except ImportError:
            pass
    return json.dumps(found)


if __name__ == "__main__":
    with Runner("stale") as rr:
        print(rr.service(versions)().get())
"""


def write(place: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def seen(place: Path, environment: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = json.loads(run([PYTHON, "main.py"], place, environment))
    return found


def included(place: Path, version: str) -> None:
    write(place, {"requirements.txt": "-r more/base.txt\n", "more/base.txt": f"alpha=={version}\n"})


def constrained(place: Path, version: str) -> None:
    write(place, {"requirements.txt": "alpha\n-c pins.txt\n", "pins.txt": f"alpha=={version}\n"})


def wheel(place: Path, version: str) -> None:
    write(place, {"requirements.txt": "./delta-1.0-py3-none-any.whl\n"})
    made = make_wheel(place, "delta", "1.0")
    import zipfile

    with zipfile.ZipFile(made, "a") as archive:
        archive.writestr("delta/__init__.py", f"VERSION = {version!r}\n")


def directory(place: Path, version: str) -> None:
    write(
        place,
        {
            "requirements.txt": "./libs/liba\n",
            "libs/liba/pyproject.toml": package("liba", "1"),
            "libs/liba/liba.py": f"VERSION = {version!r}\n",
        },
    )


def file_url(place: Path, version: str) -> None:
    outside = place.parent / "outside"
    write(outside, {"pyproject.toml": package("liba", "1"), "liba.py": f"VERSION = {version!r}\n"})
    write(place, {"pyproject.toml": package("flatproj", "1", dependencies=f'"liba @ {outside.as_uri()}"', build="")})


def editable(place: Path, version: str) -> None:
    write(place.parent / "liba", {"pyproject.toml": package("liba", "1"), "src/liba/__init__.py": f"VERSION = {version!r}\n"})
    sources = '[tool.uv.sources]\nliba = {path = "../liba", editable = true}\n'
    write(place, {"pyproject.toml": package("flatproj", "1", dependencies='"liba"', build="", rest=sources)})


@pytest.mark.parametrize("change", [included, constrained, wheel, directory, file_url, editable])
def test_a_change_of_content_shows_on_the_next_run(change: Callable[[Path, str], None], tmp_path: Path, installing: dict[str, str]) -> None:
    place = tmp_path / "project"
    write(place, {"main.py": PROGRAM})
    change(place, "1.0")
    assert "1.0" in seen(place, installing).values()
    change(place, "1.5")
    assert "1.5" in seen(place, installing).values()


def test_another_index_is_another_environment(tmp_path: Path, index: Index, installing: dict[str, str]) -> None:
    write(tmp_path, {"main.py": PROGRAM, "requirements.txt": "alpha\n"})
    assert seen(tmp_path, installing) == {"alpha": "2.0"}
    (tmp_path / "constraints.txt").write_text("alpha<2\n")
    assert seen(tmp_path, {**installing, "UV_CONSTRAINT": str(tmp_path / "constraints.txt")}) == {"alpha": "1.5"}
    make_wheel(tmp_path / "other", "alpha", "3.0")
    other = Index(tmp_path / "other")
    try:
        assert seen(tmp_path, {**installing, "UV_DEFAULT_INDEX": other.url}) == {"alpha": "3.0"}
    finally:
        other.close()


def test_refresh_installs_anew_what_no_file_tells(tmp_path: Path, installing: dict[str, str]) -> None:
    program = PROGRAM.replace(
        "        print(rr.service(versions)().get())\n",
        "        first = rr.service(versions)\n"
        "        print(first().get())\n"
        "        from pathlib import Path\n"
        "        from flame_host.testing.installers import make_wheel\n"
        f"        make_wheel(Path({str(tmp_path / 'index')!r}), 'alpha', '2.5')\n"
        "        rr.refresh(environment=True)\n"
        "        print(rr.service(versions)().get(), first().get(), sep='\\n')\n",
    )
    make_wheel(tmp_path / "index", "alpha", "2.0")
    write(tmp_path / "project", {"main.py": program, "requirements.txt": "alpha\n"})
    own = Index(tmp_path / "index")
    try:
        said = run(
            [PYTHON, "main.py"], tmp_path / "project", {**installing, "UV_DEFAULT_INDEX": own.url, "UV_CACHE_DIR": str(tmp_path / "cache")}
        )
    finally:
        own.close()
    assert re.findall(r'"alpha": "([^"]+)"', said) == ["2.0", "2.5", "2.0"], "an open service goes on with what it has"


def test_a_program_can_be_run_with_environments_installed_anew(tmp_path: Path, installing: dict[str, str]) -> None:
    flame = str(Path(PYTHON).with_name("flame"))
    make_wheel(tmp_path / "index", "alpha", "2.0")
    write(tmp_path / "project", {"main.py": PROGRAM, "requirements.txt": "alpha\n"})
    own = Index(tmp_path / "index")
    environment = {**installing, "UV_DEFAULT_INDEX": own.url, "UV_CACHE_DIR": str(tmp_path / "cache")}
    try:
        assert seen(tmp_path / "project", environment) == {"alpha": "2.0"}
        make_wheel(tmp_path / "index", "alpha", "2.5")
        assert seen(tmp_path / "project", environment) == {"alpha": "2.0"}, "what only the index knows"
        said = run([flame, "run", "--refresh", "main.py"], tmp_path / "project", environment)
    finally:
        own.close()
    assert json.loads(said) == {"alpha": "2.5"}
    inline = {**environment, "FLAME_ENGINE": "inline"}
    assert "on this machine only" in run([flame, "run", "--refresh", "main.py"], tmp_path / "project", inline, fails=True)
