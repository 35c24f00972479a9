"""The programs of the front pages print what their comments say."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROGRAMS = [
    pytest.param(program, id=f"{page}-{number}")
    for page in ("README.md", "sdk/README.md")
    for number, program in enumerate(re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL), 1)
]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("engine", ["inline", "local"])
def test_a_program_of_the_front_pages_prints_what_its_comments_say(program: str, engine: str, tmp_path: Path, offline_host: Path):
    (tmp_path / "main.py").write_text(program)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "front-page"\nversion = "1"\n')
    environment = {**os.environ, "FLAME_ENGINE": engine}
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == re.findall(r"print\(.*\)\s+# (.*)", program)
