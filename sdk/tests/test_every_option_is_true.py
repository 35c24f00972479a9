"""Every option that the reference documents changes something, or is refused; and nothing is read that it does not document."""

from __future__ import annotations

import dataclasses
import inspect
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flamepy import ConfigError, Runner
from flamepy._config import settings
from flamepy._config.settings import resolve

from flame_host import Host
from flame_host._settings import Settings as HostSettings
from flame_host._settings import load_settings

Write = Callable[..., Path]
PROJECT = '[project]\nname = "x"\nversion = "1"\n'

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "configuration.md").read_text()


def rows(head: str) -> list[list[str]]:
    """Cells of the table whose head begins like this."""
    table = PAGE[PAGE.index(head) :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table]


def codes(cell: str) -> list[str]:
    return re.findall(r"`([A-Za-z_.]+)", cell)


OPTIONS = rows("| What | `Runner(…)`")
VARIABLES = [name for row in OPTIONS for name in codes(row[2])]
KEYS = [name for row in OPTIONS for name in codes(row[3])]
KEYWORDS = [name for row in OPTIONS for name in codes(row[1]) if not name.startswith("rr.")]
HOST_OPTIONS = [(codes(row[0])[0], (codes(row[1]) or [""])[0]) for row in rows("| `config.toml`, `Host(…)`")]

PROBES: dict[str, Any] = {
    "engine": "probe:", "endpoint": "probe:", "storage": "file:///probe", "exclude": ["probe"], "include": ["probe"], "python": "3.1",
    "logs": "none", "package_limit": "1K", "policy": {"pickle": "deny"}, "dependencies": ["probe"], "resources": "cpu=2",
    "cache_endpoint": "probe://cache", "ca_file": "/probe.pem", "build": True,
}  # fmt: skip
"""What to say; other lists of names are closed with one name."""


def probe(name: str) -> Any:
    return PROBES.get(name, ["probe"])


def as_text(value: Any) -> str:
    if isinstance(value, dict):
        return ",".join(f"{key}={word}" for key, word in value.items())
    return ",".join(value) if isinstance(value, list) else str(value)


def outcome(read: Callable[[], Any]) -> Any:
    """What is read, or that it is refused."""
    try:
        return read()
    except ConfigError as error:
        return f"refused: {error}"


def told(project: Path, keywords: dict[str, Any] | None = None) -> Any:
    def read() -> Any:
        found = dataclasses.replace(resolve(project, keywords or {}), origins={})
        needs = Host().project_needs(project)
        return dataclasses.replace(found, context=None), needs  # type: ignore[arg-type]

    return outcome(read)


@pytest.fixture(autouse=True)
def base(write: Write) -> None:
    write("flame.yaml", "clusters:\n  - name: a\n    endpoint: far://a\n")
    write("pyproject.toml", PROJECT + "[tool.flame]\n")


def test_the_tables_are_read() -> None:
    assert len(OPTIONS) > 15
    assert {"FLAME_ENGINE", "FLAME_CA_FILE", "FLAME_CACHES"} <= set(VARIABLES)
    assert {"caches", "resources", "groups"} <= set(KEYS)
    assert {"root", "offline"} <= {name for name, _ in HOST_OPTIONS}


@pytest.mark.parametrize("variable", VARIABLES)
def test_a_variable_changes_what_holds(variable: str, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if variable == "FLAME_PROJECT":
        from flamepy._package.project import locate

        monkeypatch.delenv(variable)
        before = locate(None, Path(__file__)).root
        monkeypatch.setenv(variable, str(tmp_path))
        assert locate(None, Path(__file__)).root == tmp_path != before
        return
    before = told(project)
    monkeypatch.setenv(variable, as_text(probe(variable.removeprefix("FLAME_").lower())))
    assert told(project) != before


@pytest.mark.parametrize("key", KEYS)
def test_a_key_of_the_project_changes_what_holds(key: str, project: Path, write: Write) -> None:
    before = told(project)
    value = probe(key)
    text = "{" + ", ".join(f'{name} = "{word}"' for name, word in value.items()) + "}" if isinstance(value, dict) else repr(value)
    write("pyproject.toml", f"{PROJECT}[tool.flame]\n{key} = {text.replace('True', 'true')}\n")
    assert told(project) != before


@pytest.mark.parametrize("keyword", KEYWORDS)
def test_a_keyword_changes_what_holds(keyword: str, project: Path, tmp_path: Path) -> None:
    assert keyword in inspect.signature(Runner).parameters
    if keyword == "project":
        (tmp_path / "other").mkdir()
        with Runner("x", engine="inline", project=tmp_path / "other", logs="none") as rr:
            assert rr.application.package is not None
        return
    name = {"exclude": "excludes", "python_version": "python"}.get(keyword, keyword)
    assert told(project, {name: probe("exclude" if name == "excludes" else name)}) != told(project)


def test_what_is_understood_in_a_project_is_documented() -> None:
    assert settings._KNOWN - set(KEYS) - {"stores", "build"} == set()
    assert "`stores`" in PAGE
    assert "`build`" in PAGE


def test_every_setting_is_said_by_some_option() -> None:
    assert {field.name for field in dataclasses.fields(HostSettings)} == {name for name, _ in HOST_OPTIONS}


@pytest.mark.parametrize(("name", "variable"), HOST_OPTIONS)
def test_an_option_of_the_host_changes_its_settings(name: str, variable: str, tmp_path: Path) -> None:
    values = {
        "root": tmp_path / "root", "offline": True, "fetch_seconds": 1, "install_seconds": 1, "policy": {"pickle": "deny"},
        "limits": {"members": 1},
    }  # fmt: skip
    value = values.get(name, ["probe"])
    environ = {"FLAME_HOST_ROOT": os.environ["FLAME_HOST_ROOT"]}
    before = load_settings(environ)
    assert load_settings(environ, **{name: value}) != before
    if variable:
        assert load_settings({**environ, variable: as_text(value)}) != before
