"""Every test runs in a small project of its own, with no configuration but what it writes itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner, disconnect


@pytest.fixture(scope="session")
def host_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shared by all tests: making environments anew would tell nothing."""
    return tmp_path_factory.mktemp("host")


@pytest.fixture(autouse=True)
def project(tmp_path: Path, host_root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    for name in list(os.environ):
        if name.startswith("FLAME_"):
            monkeypatch.delenv(name)
    home = tmp_path / "home"
    directory = home / "project"
    directory.mkdir(parents=True)
    monkeypatch.setenv("FLAME_PROGRESS", "0")  # on a busy machine anything may take a second, and be said to
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("FLAME_HOST_ROOT", str(host_root))
    monkeypatch.chdir(directory)
    monkeypatch.setenv("FLAME_PROJECT", str(directory))  # the tests themselves stand in another project
    yield directory
    disconnect()


@pytest.fixture(params=["inline", "local"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def runner(engine: str) -> Iterator[Runner]:
    with Runner("test", engine=engine) as rr:
        yield rr


@pytest.fixture
def local() -> Iterator[Runner]:
    with Runner("test", engine="local") as rr:
        yield rr


@pytest.fixture
def write(project: Path) -> Callable[..., Path]:
    def write(name: str, content: Any = "") -> Path:
        path = project / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else str(content).encode())
        return path

    return write
