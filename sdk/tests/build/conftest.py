"""A project written file by file."""

from __future__ import annotations

import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

Write = Callable[..., Path]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "shop"
    root.mkdir()
    return root


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
