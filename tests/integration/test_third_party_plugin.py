"""A plugin of a third party works once it is installed: no line of the host knows of it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PLUGIN = ROOT / "examples" / "plugins" / "flame-archive-zst"

PROGRAM = """
import sys
from pathlib import Path
from flame_host._plugins.catalog import Catalog
from flame_host._packages.unpack.parent import recognise, unpack
from flame_host.api import Limits, Member, MemberKind

catalog = Catalog()
archiver = catalog.archiver("tar.zst")
archive = Path("package.tar.zst")
with archive.open("wb") as target:
    archiver.write([Member("app/run.py", size=5, content=b"run()"), Member("link", MemberKind.SYMLINK, link="app")], target)
assert recognise(archive, catalog.all("archivers").values()) is archiver
print(unpack(archive, Path("tree"), archiver, Limits()))
print(Path("tree/link/run.py").read_text(), sorted(catalog.all("archivers")))
"""


def run(*command: object, cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE")}
    done = subprocess.run([str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=110)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment holding the host and the plugin, both from wheels, and nothing else of ours."""
    uv = shutil.which("uv")
    if uv is None:
        pytest.skip("no uv here")
    wheels = tmp_path / "wheels"
    for project in (ROOT, PLUGIN):
        copy = tmp_path / f"source-{project.name}"
        folders = [folder for folder in ("src", "flame_host") if (project / folder).is_dir()]
        for folder in folders:
            shutil.copytree(project / folder, copy / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(project / name, copy / name)
        run(uv, "build", "--wheel", "--no-build-isolation", "--python", sys.executable, "--out-dir", wheels, copy, cwd=tmp_path)
    environment = tmp_path / "environment"
    run(uv, "venv", "--python", sys.executable, environment, cwd=tmp_path)
    interpreter = environment / "bin" / "python"
    run(uv, "pip", "install", "--python", interpreter, *wheels.glob("*.whl"), cwd=tmp_path)
    return interpreter


@pytest.mark.slow
def test_a_wheel_of_a_third_party_adds_an_archive_format(python: Path, tmp_path: Path) -> None:
    told = run(python, "-c", PROGRAM, cwd=tmp_path)
    assert "count=2" in told
    assert "run() ['tar.zst']" in told
    assert {path.name for path in (tmp_path / "tree").iterdir()} == {"app", "link"}
