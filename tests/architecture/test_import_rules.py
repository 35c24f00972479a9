"""The import rules of the house hold, and each would be noticed if it did not."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RULES = ROOT / ".importlinter"
LINT = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]

BREACHES = {
    "circles": ("flame_host/api/errors.py", "def late():\n    import flame_host.api.hookspecs\n"),
    "api": ("flame_host/api/errors.py", "import yaml\n"),
    "plugins": ("plugins/flame-archive-tar/src/flame_archive_tar/plugin.py", "import flame_host._settings\n"),
    "host": ("flame_host/engine/loop.py", "import flame_archive_zip\n"),
    "engine_plugins": ("plugins/flame-engine-ray/src/flame_engine_ray/plugin.py", "def late():\n    import flame_host.engine.loop\n"),
    "wire_plugins": ("plugins/flame-engine-flame/src/flame_engine_flame/plugin.py", "def late():\n    import flame_host._settings\n"),
    "server": ("flame_host/wire/bson.py", "def late():\n    import flame_host.serve.frames\n"),
    "arrow": ("flame_host/serve/frames.py", "def late():\n    import pyarrow\n"),
    "client": ("sdk/src/flamepy/_refs.py", "import flame_host.engine.loop\n"),
    "heavy": ("flame_host/engine/shares.py", "def late():\n    import numpy\n"),
    "worker": ("flame_host/worker/runtime/output.py", "import cloudpickle\n"),
}
"""By rule: a file, and lines that break it and nothing else that matters here."""


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    sources = [root, root / "sdk" / "src", *root.glob("plugins/*/src")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, sources))}
    return subprocess.run(
        [*LINT, "--config", str(root / ".importlinter")], cwd=root, env=variables, capture_output=True, text=True, check=False
    )


def rules() -> dict[str, str]:
    """Names of the rules, by their short ones."""
    config = configparser.ConfigParser()
    config.read(RULES)
    prefix = "importlinter:contract:"
    return {section.removeprefix(prefix): config[section]["name"] for section in config.sections() if section.startswith(prefix)}


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What is said of a copy of the sources in which every rule is broken once."""
    copy = tmp_path_factory.mktemp("copy")
    for name in ("flame_host", "sdk/src", "tests/architecture", *(str(path.relative_to(ROOT)) for path in ROOT.glob("plugins/*/src"))):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(RULES, copy)
    for file, lines in BREACHES.values():
        with (copy / file).open("a") as stream:
            stream.write("\n" + lines)
    result = lint(copy)
    assert result.returncode != 0
    return result.stdout


def test_the_rules_hold():
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout


def test_every_rule_is_broken_on_purpose():
    assert set(BREACHES) == set(rules())


@pytest.mark.parametrize("rule", BREACHES)
def test_a_breach_of_a_rule_is_noticed(broken: str, rule: str):
    assert f"{rules()[rule]} BROKEN" in broken
    detail = broken[broken.index("Broken contracts") :]
    module = Path(BREACHES[rule][0]).with_suffix("").as_posix().removeprefix("sdk/src/")
    module = re.sub(r"plugins/[^/]+/src/", "", module).replace("/", ".")
    assert module in detail[detail.index(rules()[rule]) :]


def test_every_plugin_is_named_in_the_rules():
    text = RULES.read_text()
    assert [path.name for path in (ROOT / "plugins").iterdir() if f"    {path.name.replace('-', '_')}\n" not in text] == []


def test_no_private_module_is_named_in_the_rules():
    assert re.findall(r"^    .*\._\w+$", RULES.read_text(), re.MULTILINE) == ["    flame_host.__main__"]
