"""A simulated executor manager, and a watch that nothing it started stays behind."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flame_host.testing.executor_manager import ExecutorManager, Registration, descendants


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory with a path short enough for sockets, empty again when the test is over."""
    directory = Path(tempfile.mkdtemp(prefix="flm-"))
    yield directory
    left = [path.name for path in directory.iterdir()]
    shutil.rmtree(directory)
    assert left == []
    assert list(descendants(os.getpid())) == []


@pytest.fixture
def manager(sockets: Path) -> Iterator[ExecutorManager]:
    with ExecutorManager(sockets) as manager:
        yield manager


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Registration]:
    """Registers a Python program of the given source."""

    def register(source: str, **facts: object) -> Registration:
        path = tmp_path / "program.py"
        path.write_text(source)
        return Registration("service", arguments=(str(path),), **facts)  # type: ignore[arg-type]

    return register
