"""Handlers see the environment and the current directory; each test has clean ones."""

from __future__ import annotations

from pathlib import Path

import pytest

_VARIABLES = (
    "FLAME_RESOURCE_NAME", "FLASH_RESOURCE_NAME", "RUNPOD_ENDPOINT_ID", "FLAME_MANIFEST_PATH", "FLASH_MANIFEST_PATH", "FLAME_ENDPOINTS",
    "FLAME_POLICY", "FLAME_POLICY_PICKLE", "FLAME_MAX_ARGUMENT_BYTES", "FLAME_MAX_RESULT_BYTES", "FLAME_ENDPOINT_TIMEOUT",
    "RUNPOD_API_KEY", "FLAME_ENDPOINT_KEY",
)  # fmt: skip


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in _VARIABLES:
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.chdir(tmp_path)
