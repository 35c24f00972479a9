"""Type checkers see what a service takes and gives."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SNIPPETS = ROOT / "tests" / "typing"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["mypy", "pyright"])
def errors(request: pytest.FixtureRequest) -> dict[str, set[int]]:
    """File name → lines with errors."""
    pytest.importorskip(request.param)
    if request.param == "pyright" and shutil.which("node") is None:
        pytest.skip("pyright needs node")
    files = [str(SNIPPETS / "good.py"), str(SNIPPETS / "bad.py")]
    options = ["--strict", "--no-error-summary"] if request.param == "mypy" else ["--pythonpath", sys.executable]
    done = subprocess.run([sys.executable, "-m", request.param, *options, *files], cwd=ROOT, capture_output=True, text=True, timeout=240)
    found: dict[str, set[int]] = {"good.py": set(), "bad.py": set()}
    for name, line in re.findall(r"(good\.py|bad\.py):(\d+):.*error", done.stdout):
        found[name].add(int(line))
    assert found["bad.py"], done.stdout + done.stderr
    return found


@pytest.mark.timeout(300)
def test_wrong_use_of_a_service_is_an_error_and_nothing_else_is(errors: dict[str, set[int]]) -> None:
    lines = (SNIPPETS / "bad.py").read_text().splitlines()
    assert errors["bad.py"] == {number for number, line in enumerate(lines, 1) if line.endswith("# error")}


@pytest.mark.timeout(300)
def test_right_use_of_a_service_is_no_error(errors: dict[str, set[int]]) -> None:
    assert errors["good.py"] == set()
