"""The pages about serverless builds say what is so."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from flamepy.build import ManifestBuilder, RemoteDecoratorScanner
from flamepy.build.manifest import manifest_schema
from flamepy.cli import app
from typer.main import get_command

DOCS = Path(__file__).parents[3] / "docs"
HOW_TO = (DOCS / "how-to" / "serverless.md").read_text()
REFERENCE = (DOCS / "reference" / "manifest.md").read_text()


def test_the_program_of_the_how_to_gives_the_manifest_of_the_reference(project: Path) -> None:
    block = re.search(r"```python\n# shop\.py\n(.*?)```", HOW_TO, re.DOTALL)
    assert block is not None
    (project / "shop.py").write_text(block[1])
    found = RemoteDecoratorScanner(project).discover_remote_functions()
    made = ManifestBuilder("shop", [replace(each, file_path=each.file_path.relative_to(project)) for each in found]).build()
    shown = _shown()
    counter = next(function for function in made["resources"]["cpu-worker"]["functions"] if function["name"] == "Counter")
    (documented,) = shown["resources"]["cpu-worker"].pop("functions")
    made["resources"]["cpu-worker"].pop("functions")
    assert counter | {"line": 0} == documented | {"line": 0}
    assert made["resources"]["cpu-worker"] == shown["resources"]["cpu-worker"]
    assert list(made["resources"]) == ["cpu-worker", "gpu-worker"]


def test_the_manifest_of_the_reference_is_one() -> None:
    jsonschema.validate(_shown(), manifest_schema())


def _shown() -> dict[str, Any]:
    block = re.search(r"```json\n(.*?)```", REFERENCE, re.DOTALL)
    assert block is not None
    manifest: dict[str, Any] = json.loads(block[1])
    return manifest


def test_every_field_of_the_schema_is_documented() -> None:
    schema = manifest_schema()
    definitions = schema["$defs"]
    for properties in (schema["properties"], definitions["resource"]["properties"], definitions["function"]["properties"]):
        for name in properties:
            assert f"`{name}`" in REFERENCE, name


@pytest.mark.parametrize("command", ["build", "deploy", "dev"])
def test_every_option_is_documented(command: str) -> None:
    for parameter in get_command(app).commands[command].params:  # type: ignore[attr-defined]
        for option in parameter.opts:
            if option.startswith("--") and option != "--help":
                assert f"`{option}`" in HOW_TO, option


def test_links_lead_somewhere() -> None:
    for page in (DOCS / "how-to" / "serverless.md", DOCS / "reference" / "manifest.md"):
        for link in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
            assert (page.parent / link).exists(), link


def test_the_flash_program_of_the_how_to_is_taken_as_it_is(project: Path) -> None:
    block = re.search(r"```python\n# chat\.py\n(.*?)```", HOW_TO, re.DOTALL)
    assert block is not None
    (project / "chat.py").write_text(block[1])
    found = RemoteDecoratorScanner(project).discover_remote_functions()
    assert [(each.function_name, each.resource_config_name, each.route) for each in found] == [
        ("tokens", "tokens", None),
        ("chat", "chat-api", ("POST", "/chat")),
    ]
