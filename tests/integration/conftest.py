"""Interpreters with what others have published, in environments of their own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

WORKER_SDK = "runpod==1.12.0"
PUBLIC_CLIENT = "flamepy==0.6.0"


def _interpreter_with(requirement: str, place: Path) -> Path:
    """Of our own version, since pickles go between it and us."""
    subprocess.run(["uv", "venv", "-q", "-p", sys.executable, str(place)], check=True, timeout=60)
    python = place / "bin" / "python"
    order = ["uv", "pip", "install", "-q", "-p", str(python), requirement]
    done = subprocess.run(order, capture_output=True, text=True, timeout=110, check=False)
    if done.returncode:
        pytest.skip(f"{requirement} cannot be installed here: {done.stderr.strip()[-300:]}")
    return python


@pytest.fixture(scope="session")
def worker_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has the serverless platform's worker SDK, and nothing of ours."""
    return _interpreter_with(WORKER_SDK, tmp_path_factory.mktemp("worker-sdk") / "venv")


@pytest.fixture(scope="session")
def public(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An interpreter that has Flame's public SDK, as it is on the index, and nothing of ours."""
    return _interpreter_with(PUBLIC_CLIENT, tmp_path_factory.mktemp("public") / "env")
