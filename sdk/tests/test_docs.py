"""The documentation's programs run, and its links to tests lead somewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
BLOCKS = re.findall(r"## ([^\n]*)\n\n```python\n(.*?)```", (DOCS / "how-to" / "services.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("title", "program"), BLOCKS, ids=[title for title, _ in BLOCKS])
def test_a_block_prints_what_its_comments_say(title: str, program: str, engine: str, write: Callable[..., Path], project: Path) -> None:
    write("main.py", program)
    done = subprocess.run(
        [sys.executable, "main.py"], cwd=project, env={**os.environ, "FLAME_ENGINE": engine}, capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)\s+# (.*)", program)


def test_every_row_of_the_compatibility_table_names_tests_that_exist() -> None:
    rows = [line for line in (DOCS / "reference" / "compatibility.md").read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 20
    for row in rows:
        links = re.findall(r"\]\((\.\./\.\./[^)]*)\)", row)
        assert links, row
        sources = "".join((DOCS / "reference" / link).read_text() for link in links)
        for name in re.findall(r"`(test_\w+)`", row):
            assert f"def {name}(" in sources, name


def test_every_setting_of_the_project_is_documented() -> None:
    from flamepy._config.settings import _KNOWN, _VARIABLES

    page = (DOCS / "reference" / "configuration.md").read_text()
    for name in _KNOWN - {"build", "resources", "stores", "name"}:
        assert f"`{name}`" in page, name
    for variable in _VARIABLES.keys() - {"FLAME_STORES"}:
        assert variable in page, variable
