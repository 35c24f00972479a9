"""``flash_manifest.json``: which endpoint serves which function."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from flamepy.build.errors import BuildError, Problem
from flamepy.build.scanner import RemoteFunctionMetadata

__all__ = ["SCHEMA_VERSION", "ManifestBuilder", "handler_module", "manifest_schema"]

SCHEMA_VERSION = "1.0"
"""A new minor version only adds keys that readers may ignore; anything else makes a new major one, which old readers refuse."""

_UNSAFE = re.compile(r"[^A-Za-z0-9_-]")


class ManifestBuilder:
    """Groups functions by their resource.

    Args:
        facts: more keys for the top level, such as ``source_paths``.
    """

    def __init__(self, project_name: str, functions: Iterable[RemoteFunctionMetadata], *, facts: Mapping[str, Any] | None = None) -> None:
        self.project_name = project_name
        self.functions = list(functions)
        self._facts = dict(facts or {})

    def build(self) -> dict[str, Any]:
        """The manifest as a dict.

        Raises:
            BuildError: a name is served twice, or two resources of one name differ.
        """
        functions = self.functions
        problems = [*_served_twice(functions), *_differing(functions), *_same_handler(functions), *_routes_twice(functions)]
        if problems:
            raise BuildError(problems, hint="jobs ask for functions and resources by name, so a name can stand for one only")
        groups: dict[str, list[RemoteFunctionMetadata]] = {}
        for function in self.functions:
            groups.setdefault(function.resource_config_name, []).append(function)
        return {
            "version": SCHEMA_VERSION,
            "generated_at": _now(),
            "project_name": self.project_name,
            **self._facts,
            "resources": {name: _resource(name, groups[name]) for name in sorted(groups)},
            **({"routes": routes} if (routes := _routes(groups)) else {}),
            "function_registry": {
                function.function_name: function.resource_config_name
                for function in sorted(self.functions, key=lambda function: function.function_name)
            },
        }

    def write_to_file(self, path: str | Path) -> Path:
        """Build it and write it as JSON; returns the path."""
        return write_manifest(self.build(), Path(path))


def put_together(functions: Iterable[RemoteFunctionMetadata]) -> list[str]:
    """Of each resource that is described in several places, and not alike, a line that says so."""
    first: dict[str, RemoteFunctionMetadata] = {}
    told = []
    for function in functions:
        other = first.setdefault(function.resource_config_name, function)
        if (function.settings, function.given) != (other.settings, other.given):
            places = f"{other.file_path.as_posix()}:{other.line} and {function.file_path.as_posix()}:{function.line}"
            told.append(
                f"resource {function.resource_config_name!r} is put together of what {places} say; their functions share its workers"
            )
    return told


def write_manifest(manifest: Mapping[str, Any], path: Path) -> Path:
    path.write_text(json.dumps(manifest, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return path


def manifest_schema() -> dict[str, Any]:
    """The JSON Schema of manifests, as it is published."""
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("flash_manifest.schema.json").read_text(encoding="utf-8"))
    return schema


def handler_module(resource: str) -> str:
    """Module name of a resource's handler: a file name on every system, whatever the resource is called."""
    safe = _UNSAFE.sub("_", resource)
    if safe != resource or len(safe) > 80:
        # Distinct resources keep distinct files: what was replaced is told apart by the hash.
        safe = f"{safe[:80]}_{hashlib.sha256(resource.encode()).hexdigest()[:8]}"
    return f"handler_{safe}"


def _routes(groups: Mapping[str, Sequence[RemoteFunctionMetadata]]) -> dict[str, dict[str, str]]:
    """Resource → ``"METHOD /path"`` → function."""
    routes = {
        name: {" ".join(function.route): function.function_name for function in groups[name] if function.route is not None}
        for name in sorted(groups)
    }
    return {name: table for name, table in routes.items() if table}


def _resource(name: str, functions: Sequence[RemoteFunctionMetadata]) -> dict[str, Any]:
    first = functions[0]
    settings = _merged_settings(functions)
    for key in ("dependencies", "system_dependencies"):
        settings.pop(key, None)
    own = [lists for function in functions for lists in (function.settings.get("dependencies", ()), function.dependencies)]
    system = [lists for function in functions for lists in (function.settings.get("system_dependencies", ()), function.system_dependencies)]
    options = settings.pop("options", None)
    concurrency = settings.pop("max_concurrency", 1)
    to_set = {key: {"from": source, "default": default} for function in functions for key, (source, default) in function.to_set.items()}
    return {
        "resource_type": first.resource_type,
        "handler_file": f"{handler_module(name)}.py",
        **settings,
        **({"max_concurrency": concurrency} if concurrency != 1 else {}),
        **({"options": options} if options else {}),
        **({"env_to_set": to_set} if to_set else {}),
        "dependencies": _merged(own),
        "system_dependencies": _merged(system),
        "functions": [_function(function) for function in functions],
    }


def _function(function: RemoteFunctionMetadata) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": function.function_name,
        "module": function.module_path,
        "is_async": function.is_async,
        "is_class": function.is_class,
        "parameters": list(function.parameters),
        "docstring": function.docstring,
    }
    if function.line:
        entry["line"] = function.line
    if function.file_path.name and not function.file_path.is_absolute():  # an absolute one says where the builder's home is
        entry["file"] = function.file_path.as_posix()
    if function.is_generator:
        entry["is_generator"] = True
    if function.route is not None:
        entry["route"] = {"method": function.route[0], "path": function.route[1]}
    if function.original:
        entry["original"] = function.original
    if function.is_class:
        entry["methods"] = [
            {"name": method.name, "is_async": method.is_async, "parameters": list(method.parameters)} for method in function.methods
        ]
    return entry


def _merged(lists: Iterable[Iterable[str]]) -> list[str]:
    return list(dict.fromkeys(text for texts in lists for text in texts))


def _now() -> str:
    epoch = os.environ.get("SOURCE_DATE_EPOCH", "")
    moment = datetime.fromtimestamp(int(epoch), timezone.utc) if epoch.isdigit() else datetime.now(timezone.utc)
    return moment.replace(tzinfo=None).isoformat() + "Z"


def _served_twice(functions: Iterable[RemoteFunctionMetadata]) -> Iterable[Problem]:
    first: dict[str, RemoteFunctionMetadata] = {}
    for function in functions:
        other = first.setdefault(function.function_name, function)
        if other is not function:
            there = f"resource {other.resource_config_name!r} ({other.file_path.as_posix()}:{other.line})"
            message = f"{function.function_name!r} is served by resource {function.resource_config_name!r} and by {there}; rename one"
            yield Problem(function.file_path.as_posix(), function.line, message)


def _differing(functions: Iterable[RemoteFunctionMetadata]) -> Iterable[Problem]:
    first: dict[str, RemoteFunctionMetadata] = {}
    for function in functions:
        other = first.setdefault(function.resource_config_name, function)
        differing = sorted(_conflicts(other, function))
        if differing:
            message = (
                f"resource {function.resource_config_name!r} of {function.function_name} is not the one of {other.function_name} "
                f"({other.file_path.as_posix()}:{other.line}): they differ in {', '.join(differing)}; rename one"
            )
            yield Problem(function.file_path.as_posix(), function.line, message)


def _conflicts(one: RemoteFunctionMetadata, other: RemoteFunctionMetadata) -> Iterable[str]:
    """Settings that both say, and say differently. What only one of them says holds for both; requirements are put together."""
    if one.resource_type != other.resource_type:
        yield f"type ({one.resource_type}, {other.resource_type})"
    for key in (one.settings.keys() | other.settings.keys()) - {"dependencies", "system_dependencies", "options", "env"}:
        if one.gives(key) and other.gives(key) and one.settings.get(key) != other.settings.get(key):
            yield key
    kinds = [{"cpu", "gpu"} & (function.settings.get("options") or {}).keys() for function in (one, other)]
    if all(kinds) and kinds[0] != kinds[1]:
        yield "cpu= and gpu="
    for key in ("options", "env"):
        mine, theirs = one.settings.get(key) or {}, other.settings.get(key) or {}
        yield from (inner for inner in mine.keys() & theirs.keys() if mine[inner] != theirs[inner])


def _merged_settings(functions: Sequence[RemoteFunctionMetadata]) -> dict[str, Any]:
    settings = dict(functions[0].settings)
    for function in functions[1:]:
        for key, value in function.settings.items():
            if key in ("options", "env"):
                settings[key] = {**(settings.get(key) or {}), **(value or {})}
            elif key not in ("dependencies", "system_dependencies") and function.gives(key):
                settings[key] = value
    return settings


def _routes_twice(functions: Iterable[RemoteFunctionMetadata]) -> Iterable[Problem]:
    first: dict[tuple[str, object], RemoteFunctionMetadata] = {}
    for function in functions:
        if function.route is None:
            continue
        other = first.setdefault((function.resource_config_name, function.route), function)
        if other is not function:
            message = f"{' '.join(function.route)} of resource {function.resource_config_name!r} is answered by {other.function_name}, too"
            yield Problem(function.file_path.as_posix(), function.line, message)


def _same_handler(functions: Iterable[RemoteFunctionMetadata]) -> Iterable[Problem]:
    """Names that differ in case only are one file on some systems."""
    first: dict[str, str] = {}
    for function in functions:
        name = function.resource_config_name
        other = first.setdefault(handler_module(name).casefold(), name)
        if other != name:
            message = (
                f"resources {other!r} and {name!r} differ in case only, and would share the file {handler_module(name)}.py; rename one"
            )
            yield Problem(function.file_path.as_posix(), function.line, message)
