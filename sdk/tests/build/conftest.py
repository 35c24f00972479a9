"""A project written file by file, and wheels for it to depend on."""

from __future__ import annotations

import textwrap
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def write(project: Path) -> Write:
    """Write files of the project: ``write({"workers/gpu.py": "…"})``, or the text of ``app.py`` alone."""

    def put(files: dict[str, str] | str) -> Path:
        for name, text in ({"app.py": files} if isinstance(files, str) else files).items():
            path = project / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(textwrap.dedent(text))
        return project

    return put


@pytest.fixture
def wheelhouse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory of wheels, the only place requirements come from."""
    directory = tmp_path / "wheels"
    directory.mkdir()
    monkeypatch.setenv("FLAME_HOST_WHEELHOUSE", str(directory))
    monkeypatch.setenv("FLAME_HOST_OFFLINE", "true")
    return directory


def make_wheel(directory: Path, name: str, files: dict[str, str], *, requires: tuple[str, ...] = (), tag: str = "py3-none-any") -> Path:
    info = f"{name}-1.0.dist-info"
    metadata = [f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", *(f"Requires-Dist: {other}\n" for other in requires)]
    contents = {
        **files,
        f"{info}/METADATA": "".join(metadata),
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n",
        f"{info}/entry_points.txt": f"[console_scripts]\n{name}-tool = {name}:main\n",
    }
    contents[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*contents, f"{info}/RECORD"))
    path = directory / f"{name}-1.0-{tag}.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for inner, text in contents.items():
            archive.writestr(inner, text)
    return path
