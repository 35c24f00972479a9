"""Every program of the documentation prints what its comments say, and every page is in the site."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"
OF_OTHER_TESTS = {"how-to/services.md", "how-to/serverless.md", "reference/manifest.md"}
PAGES = [
    page
    for page in sorted(DOCS.rglob("*.md"))
    if page.relative_to(DOCS).parts[0] not in ("plugins", "adr", "explanation") and str(page.relative_to(DOCS)) not in OF_OTHER_TESTS
]
PROGRAMS = [
    pytest.param(re.sub(r"(?m)^    ", "", program) if indent else program, id=f"{page.relative_to(DOCS)}-{number}")
    for page in PAGES
    for number, (indent, program) in enumerate(re.findall(r"(?ms)^( *)```python\n(.*?)^ *```", page.read_text()), 1)
]


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_prints_what_its_comments_say(program: str, tmp_path: Path, offline_host: Path) -> None:
    for name in ("joblib", "dask"):
        if f"import {name}" in program:
            pytest.importorskip(name)
    (tmp_path / "main.py").write_text(program)
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "page"\nversion = "1"\n')
    environment = {**os.environ, "FLAME_ENGINE": "inline"}
    done = subprocess.run([sys.executable, "main.py"], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [text.strip() for text in re.findall(r"print\(.*\)\s+# ((?!was:).*)", program)]


def test_there_are_programs_on_the_pages() -> None:
    assert len(PROGRAMS) >= 15


def test_every_page_is_in_the_sites_navigation() -> None:
    navigation = (DOCS.parent / "mkdocs.yml").read_text()
    for page in DOCS.rglob("*.md"):
        name = page.relative_to(DOCS).as_posix()
        assert f" {name}\n" in navigation or name == "onboarding.md", name


def test_every_event_the_host_tells_of_is_documented() -> None:
    source = "".join(path.read_text() for path in (DOCS.parent / "flame_host").rglob("*.py") if "testing" not in path.parts)
    kinds = {f"provision.{kind}" for kind in re.findall(r'_tell\("(\w+)"', source)} | set(
        re.findall(r'(?:Event|_observe)\(\s*"((?:session|executor|task)\.\w+)"', source)
    )
    page = (DOCS / "reference" / "events.md").read_text()
    assert {kind for kind in kinds if f"`{kind}`" not in page} == set()
