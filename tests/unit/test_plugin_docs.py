"""What the pages for plugin authors say is so: signatures are compared, and the first plugin is installed and run."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import subprocess
import sys
import textwrap
import types
from pathlib import Path

import pytest

from flame_host import api
from flame_host._plugins.catalog import Catalog
from flame_host._plugins.loading import Status, hook_names
from flame_host.api import EVENTS, capabilities, deployment, execution, formats, hookspecs, packages, sessions

PAGES = Path(__file__).parents[2] / "docs" / "plugins"
FAMILIES = [name.removeprefix("flame_") for name in hook_names()]


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"(?ms)^```{language}\n(.*?)^```", (PAGES / page).read_text())


def signatures(source: str) -> dict[str, dict[str, str]]:
    """Class (empty outside of one) → member → what it looks like, docstrings and spelling apart."""
    found: dict[str, dict[str, str]] = {"": {}}
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef):
            found[""][node.name] = _signature(node)
        elif isinstance(node, ast.ClassDef):
            members = found.setdefault(node.name, {})
            for part in node.body:
                if isinstance(part, ast.FunctionDef):
                    members[part.name] = _signature(part)
                elif isinstance(part, ast.AnnAssign):
                    members[ast.unparse(part.target)] = ast.unparse(part)
    return found


def _signature(node: ast.FunctionDef) -> str:
    kind = "property " if any(ast.unparse(mark) == "property" for mark in node.decorator_list) else ""
    return f"{kind}({ast.unparse(node.args)}) -> {ast.unparse(node.returns) if node.returns else ''}"


def source_of(module: object) -> str:
    return Path(str(getattr(module, "__file__", ""))).read_text()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_page_says_the_signatures_that_the_contract_has(family: str) -> None:
    hooks = signatures(source_of(hookspecs))[""]
    classes = {
        name: members
        for module in (sessions, packages, formats, execution, deployment, capabilities)
        for name, members in signatures(source_of(module)).items()
    }
    said = signatures("\n".join(blocks(f"{family}.md", "python")))
    assert said.pop("") == {f"flame_{family}": hooks[f"flame_{family}"]}
    provider = re.fullmatch(r".*Iterable\[(\w+)\]", hooks[f"flame_{family}"])
    assert provider is not None
    assert provider.group(1) in said
    for name, members in said.items():
        assert members == classes[name], f"docs/plugins/{family}.md, {name}"


@pytest.mark.parametrize("family", FAMILIES)
def test_a_hook_says_what_when_what_it_returns_and_an_example_that_is_a_plugin(family: str) -> None:
    text = inspect.cleandoc(hookspecs.__dict__[f"flame_{family}"].__doc__)
    what, when, returns, example = text.split("\n\n", 3)
    assert what.startswith("Offer ")
    assert when.startswith("Called once, ")
    assert returns.startswith("Returns:\n")
    assert example.startswith("Example::\n\n")
    module = types.ModuleType("example")
    exec(textwrap.dedent(example.removeprefix("Example::\n\n")), module.__dict__)
    catalog = Catalog(extra=[("example", module)])
    record = next(record for record in catalog.records if record.name == "example")
    assert (record.status, record.reason) == (Status.ACTIVE, "")
    [offered] = record.offers
    name, _, key = offered.partition(":")
    protocol = re.fullmatch(r"Iterable\[(\w+)\]", hookspecs.__dict__[f"flame_{family}"].__annotations__["return"])
    assert protocol is not None
    assert name == family
    assert isinstance(catalog.all(family)[key], vars(api)[protocol.group(1)])


def test_the_events_page_has_every_kind_that_is_told_of_and_no_other() -> None:
    page = (PAGES.parent / "reference" / "events.md").read_text()
    assert re.findall(r"(?m)^\| `([\w.]+)` \| (.*) \|$", page) == [(kind, what.replace("``", "`")) for kind, what in EVENTS.items()]
    told = set()
    for file in (Path(api.__file__).parents[1]).rglob("*.py"):
        if "testing" not in file.parts and "api" not in file.parts:
            told |= set(re.findall(r"""(?:_tell\(|Event\(|STALLED = )"((?:session|executor|task|provision)\.\w+)\"""", file.read_text()))
            told |= {f"provision.{step}" for step in re.findall(r"""_tell\("(\w+)", application\)""", file.read_text())}
    assert told == set(EVENTS)


def test_the_index_leads_to_a_page_of_every_hook() -> None:
    linked = set(re.findall(r"\| `flame_(\w+)` \|.*\((\w+)\.md\) \|", (PAGES / "index.md").read_text()))
    assert linked == {(family, family) for family in FAMILIES}


def test_the_first_plugin_has_ten_lines_and_works_once_installed(tmp_path: Path) -> None:
    program = blocks("index.md", "python")[0]
    assert len([line for line in program.splitlines() if line]) <= 10
    (tmp_path / "flame_observe_print.py").write_text(program)
    entry = re.search(r"(?m)^observe-print = \"(.*)\"$", blocks("index.md", "toml")[0])
    assert entry is not None
    info = tmp_path / "flame_observe_print-0.1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: flame-observe-print\nVersion: 0.1.0\n")
    (info / "entry_points.txt").write_text(f"[flame_host]\nobserve-print = {entry.group(1)}\n")
    variables = {**os.environ, "PYTHONPATH": str(tmp_path), "FLAME_HOST_ROOT": str(tmp_path / "root")}

    listed = _python(variables, "-m", "flame_host.cli", "plugins", "--json")
    record = next(record for record in json.loads(listed)["plugins"] if record["name"] == "observe-print")
    assert (record["status"], record["distribution"], record["offers"]) == ("active", "flame-observe-print", ["observers:print"])
    blocked = json.loads(_python(variables, "-m", "flame_host.cli", "-p", "no:observe-print", "plugins", "--json"))
    assert next(record for record in blocked["plugins"] if record["name"] == "observe-print")["status"] == "disabled"

    use = "import time; from flame_host import Host; from flame_host.api import Event; Host().observe(Event('hello', 0, detail='world'))"
    assert _python(variables, "-c", f"{use}; time.sleep(1)").strip() == "hello world"


def _python(variables: dict[str, str], *arguments: str) -> str:
    done = subprocess.run([sys.executable, *arguments], env=variables, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
