"""What the tests of serverless archives share."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKER_SDK = "runpod==1.12.0"


@pytest.fixture(scope="session")
def worker_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the platform's worker SDK, and nothing of ours."""
    directory = tmp_path_factory.mktemp("worker-sdk") / "venv"
    subprocess.run(["uv", "venv", "-q", "-p", sys.executable, str(directory)], check=True, timeout=60)
    python = directory / "bin" / "python"
    done = subprocess.run(
        ["uv", "pip", "install", "-q", "-p", str(python), WORKER_SDK], capture_output=True, text=True, timeout=110, check=False
    )
    if done.returncode:
        pytest.skip(f"{WORKER_SDK} cannot be installed here: {done.stderr.strip()[-300:]}")
    return python
