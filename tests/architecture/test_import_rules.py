"""The import rules of the house hold, and would be noticed if they did not."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]


def lint(config: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*LINT, "--config", str(config)], cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_rules_hold():
    result = lint(ROOT / ".importlinter")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(
    ("rule", "forbidden"),
    [("host", "pluggy"), ("api", "pluggy"), ("worker", "socket")],
)
def test_a_breach_of_a_rule_is_noticed(tmp_path: Path, rule: str, forbidden: str):
    """Each rule, told to forbid something that is imported, fails: so it does look."""
    config = configparser.ConfigParser()
    config.read(ROOT / ".importlinter")
    section = f"importlinter:contract:{rule}"
    config[section]["forbidden_modules"] += f"\n{forbidden}"
    for name in config.sections():
        if name.startswith("importlinter:contract:") and name != section:
            config.remove_section(name)
    broken = tmp_path / "broken.ini"
    with broken.open("w") as stream:
        config.write(stream)
    result = lint(broken)
    assert result.returncode != 0
    assert forbidden in result.stdout


def test_every_private_module_of_the_host_is_named_in_the_rules():
    rules = (ROOT / ".importlinter").read_text()
    missing = [path.stem for path in (ROOT / "flame_host").glob("_*") if f"flame_host.{path.stem}\n" not in rules]
    assert [name for name in missing if not name.startswith("__")] == []


def test_every_plugin_is_named_in_the_rules():
    rules = (ROOT / ".importlinter").read_text()
    assert [path.name for path in (ROOT / "plugins").iterdir() if path.name.replace("-", "_") not in rules] == []
