"""A server, and the public client in an environment of its own."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from flame_host.testing.server import ServerProcess


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    with ServerProcess(tmp_path_factory.mktemp("server")) as process:
        yield process


@pytest.fixture
def stock(public: Path, server: ServerProcess, tmp_path: Path) -> Callable[..., object]:
    """Runs a program with the public client in an empty directory; it answers in JSON, on its last line."""

    def run(*words: str) -> object:
        environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "FLAME"))}
        environment |= {**server.variables, "HOME": str(tmp_path)}
        project = tmp_path / "project"
        project.mkdir(exist_ok=True)
        done = subprocess.run([public, *words], cwd=project, env=environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, f"{done.stderr}\n--- the server:\n{server.log.read_text()[-4000:]}"
        return json.loads(done.stdout.splitlines()[-1])

    return run
