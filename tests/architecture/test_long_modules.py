"""A module of more than 300 lines says at its head why it is one."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ROOMS = ["flame_host/api", *(f"sdk/src/flamepy/{room}" for room in ("_calls", "_config", "_package", "_runner", "cli/__init__.py"))]
MOST = 300


@pytest.mark.parametrize("room", ROOMS)
def test_a_long_module_says_why_it_is_one(room: str) -> None:
    place = ROOT / room
    files = [place] if place.is_file() else sorted(place.rglob("*.py"))
    assert files
    for file in files:
        text = file.read_text()
        if len(text.splitlines()) > MOST:
            assert "Longer than 300 lines" in (ast.get_docstring(ast.parse(text)) or ""), f"{file.relative_to(ROOT)} does not say why"
