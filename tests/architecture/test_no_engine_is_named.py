"""The client goes by what an engine is like, and never by its name."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from flame_host.engine.plugin import flame_engines

SDK = Path(__file__).parents[2] / "sdk" / "src" / "flamepy"
NAMES = sorted({name for engine in flame_engines() for name in (engine.name, *engine.schemes)} | {"http", "https", "ray"})
ENGINE = re.compile(rf"({'|'.join(NAMES)})(:.*)?|.*\b(engine|FLAME_ENGINE)\W{{1,3}}({'|'.join(NAMES)})\b.*", re.DOTALL)
DEFAULTS = {"DEFAULT_ENGINE", "DEBUGGING_ENGINE"}


def named(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of what names an engine, documentation and default values apart."""
    tree = ast.parse(source)
    documentation = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    defaults = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign) and {target.id for target in node.targets if isinstance(target, ast.Name)} & DEFAULTS
    }
    for node in ast.walk(tree):
        if not isinstance(node, ast.Constant) or not isinstance(node.value, str) or id(node) in documentation | defaults:
            continue
        if ENGINE.fullmatch(node.value):
            yield node.lineno, node.value


def test_what_names_an_engine_is_found() -> None:
    assert {"local", "inline"} <= set(NAMES)
    for source in ('endpoint == "local"', 'endpoint.startswith("inline")', 'scheme in ("http", "https")', 'print("write engine=inline")'):
        assert list(named(source)), source
    assert not list(named('"""With engine="local" it is local."""\nDEFAULT_ENGINE = "local:"\nprint("a local file")'))


def test_the_client_names_no_engine() -> None:
    # What builds and serves archives for platforms has no engine to name; there, "local" is an option of a decorator, and URLs are http.
    rooms = [file for file in SDK.rglob("*.py") if file.relative_to(SDK).parts[0] not in ("build", "deploy", "flash")]
    assert len(rooms) > 50
    assert {f"{file.relative_to(SDK)}:{line}": text for file in rooms for line, text in named(file.read_text())} == {}
