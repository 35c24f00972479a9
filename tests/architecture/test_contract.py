"""The contract is closed: what a provider may offer is in a Protocol, and nobody tries whether it has something else."""

from __future__ import annotations

import ast
import inspect
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_host import api
from flame_host.api import execution, formats

ROOT = Path(__file__).parents[2]
PROTOCOLS = [api.Connection, api.Session, api.HostServices]


def members(protocol: type) -> Iterator[str]:
    return (name for name in vars(protocol) if not name.startswith("_") and name != "name")  # many other things have a name


@pytest.mark.parametrize("protocol", PROTOCOLS, ids=lambda protocol: protocol.__name__)
def test_every_method_says_what_it_does_and_what_it_raises(protocol: type) -> None:
    for name, member in vars(protocol).items():
        if name.startswith("_") or not (inspect.isfunction(member) or isinstance(member, property)):
            continue
        text = inspect.getdoc(member) or ""
        assert text, f"{protocol.__name__}.{name} has no docstring"
        assert isinstance(member, property) or "Raises:\n" in text, f"{protocol.__name__}.{name} does not say what it raises"


def test_no_distribution_tries_out_what_an_object_of_another_can_do() -> None:
    known = {
        name
        for module in (formats, execution)
        for kind in vars(module).values()
        if inspect.isclass(kind) and kind.__module__ == module.__name__
        for name in members(kind)
    }
    assert {"by_value", "dumps_code", "loads_code", "version", "traits", "drive"} <= known
    tried = []
    for file in sources():
        for node in ast.walk(ast.parse(file.read_text())):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "hasattr")):
                continue
            name = node.args[1]
            if isinstance(name, ast.Constant) and name.value in known:
                tried.append(f"{file.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)}")
    assert tried == []


def sources() -> Iterator[Path]:
    """What runs on this side of the socket: in a worker there are codecs, which are modules, and no providers."""
    for place in ("flame_host", "sdk/src", "plugins"):
        for file in (ROOT / place).rglob("*.py"):
            if "runtime" not in file.parts and "tests" not in file.parts and "_pb2" not in file.name:
                yield file
