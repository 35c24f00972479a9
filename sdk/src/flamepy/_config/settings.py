"""What holds for one Runner, from all places that may say it.

Precedence: keyword of the Runner, ``FLAME_*`` in the environment, ``[tool.flame]`` in the project's ``pyproject.toml``, ``flame.yaml``,
default. Every value knows where it comes from. Only policies are not overridden but added up: the strictest wins.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flame_host.api import ConfigError, Want, Wants, intersect_policies, parse_policy
from flamepy._config.amounts import bytes_of
from flamepy._config.flame_yaml import FlameContext, merged_excludes, unknown_key
from flamepy._package.sizes import MOST_BYTES

_LISTS = ("stores", "archivers", "installers", "serializers", "caches")
_TEXTS = ("engine", "storage", "python", "logs", "name", "package_limit")
_KNOWN = {*_LISTS, *_TEXTS, "include", "exclude", "dependencies", "extras", "groups", "policy", "build", "resources"}
_VARIABLES = {**{f"FLAME_{name.upper()}": name for name in (*_LISTS, "engine", "storage", "python", "logs", "package_limit")}}
_SPELLINGS = {"excludes": "exclude", "includes": "include"}
"""As other configurations write it; understood."""
_LOGS = ("all", "errors", "none")


@dataclass(frozen=True)
class Settings:
    """Attributes:
    engine: endpoint, never empty. storage: empty for the host's own directory.
    excludes, includes: patterns as in ``.gitignore``. logs: which output of workers is shown: ``all``, ``errors``, ``none``.
    package_limit: bytes a package may have. origins: attribute → where it was said.
    """

    engine: str
    storage: str
    excludes: tuple[str, ...]
    includes: tuple[str, ...]
    dependencies: tuple[str, ...]
    python: str
    logs: str
    wants: Wants
    policy: Mapping[str, str]
    context: FlameContext
    package_limit: int = MOST_BYTES
    origins: Mapping[str, str] = field(default_factory=dict)


def resolve(project: Path, keywords: Mapping[str, Any], context: FlameContext | None = None) -> Settings:
    """Put the layers together.

    Args:
        keywords: what the Runner was given; None means not given.
    """
    context = context or FlameContext()
    tool = ToolTable.of(project)
    layers = [
        _Layer({key: value for key, value in keywords.items() if value is not None}, "Runner(…)"),
        _environment(),
        _Layer(tool.values, "pyproject.toml [tool.flame]"),
        _from_context(context),
    ]
    origins: dict[str, str] = {}

    def first(name: str, default: Any) -> Any:
        for layer in layers:
            if name in layer.values:
                origins[name] = layer.origin(name)
                return layer.values[name]
        return default

    families = {}
    for family in _LISTS:
        names = first(family, None)
        if names is not None:
            families[family] = Want(_names(names, family, origins[family]), origins[family])
    logs = first("logs", "all")
    if logs not in _LOGS:
        raise ConfigError(f"{origins['logs']}: logs is {logs!r}", hint=f"choose one of: {', '.join(_LOGS)}")
    storage = first("storage", "")
    if storage and "stores" not in families:
        families["stores"] = Want((storage.partition(":")[0].lower(),), f"{origins['storage']} storage {storage}")
    excludes = [*(context.package.excludes if context.package else ()), *tool.values.get("exclude", ()), *(keywords.get("excludes") or ())]
    return Settings(
        engine=_with_options(_endpoint(first("engine", "")), context),
        storage=storage,
        excludes=tuple(merged_excludes(excludes)),
        includes=tuple(tool.values.get("include", ())),
        dependencies=tuple(first("dependencies", ())),
        python=first("python", ""),
        logs=logs,
        wants=Wants(families),
        policy=intersect_policies(*(parse_policy(layer.values.get("policy"), layer.origin("policy")) for layer in layers)),
        context=context,
        package_limit=bytes_of(first("package_limit", MOST_BYTES), f"package_limit in {origins.get('package_limit', 'the defaults')}"),
        origins=origins,
    )


@dataclass(frozen=True)
class _Layer:
    values: Mapping[str, Any]
    source: str
    places: Mapping[str, str] = field(default_factory=dict)

    def origin(self, name: str) -> str:
        return self.places.get(name) or f"{self.source} {name}"


def _environment() -> _Layer:
    values: dict[str, Any] = {name: os.environ[variable] for variable, name in _VARIABLES.items() if os.environ.get(variable)}
    places = {name: variable for variable, name in _VARIABLES.items()}
    if "engine" not in values and os.environ.get("FLAME_ENDPOINT"):
        values["engine"], places["engine"] = os.environ["FLAME_ENDPOINT"], "FLAME_ENDPOINT"
    if os.environ.get("FLAME_POLICY"):
        values["policy"], places["policy"] = os.environ["FLAME_POLICY"], "FLAME_POLICY"
    return _Layer(values, "environment", places)


def _from_context(context: FlameContext) -> _Layer:
    values: dict[str, Any] = {}
    places = {}
    if context.endpoint:
        values["engine"], places["engine"] = context.endpoint, context.origins.get("endpoint", "")
    if context.package is not None:
        values["storage"], places["storage"] = context.package.storage, context.origins.get("package", "")
    if context.policy:
        values["policy"] = context.policy
    return _Layer(values, "flame.yaml", places)


def _endpoint(engine: str) -> str:
    """``local`` and ``local:`` are one engine, and must share one connection."""
    return (engine if ":" in engine else f"{engine}:") if engine else "local:"


def _with_options(endpoint: str, context: FlameContext) -> str:
    """A cluster is more than its endpoint; what was said of its cache, certificates and template goes with it."""
    if endpoint.partition(":")[0] not in ("http", "https") or "?" in endpoint:
        return endpoint
    told = {name: getattr(context, attribute) for name, attribute in _OPTIONS.items() if attribute in context.origins}
    return f"{endpoint}?{urlencode(told)}" if told else endpoint


_OPTIONS = {"ca_file": "ca_file", "cache": "cache", "template": "template"}


def _names(value: Any, family: str, origin: str) -> tuple[str, ...]:
    names = [name.strip() for name in value.split(",")] if isinstance(value, str) else list(value)
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(f"{origin}: {family} must be a list of names, not {value!r}")
    return tuple(names)


@dataclass(frozen=True)
class ToolTable:
    """``[tool.flame]`` of a project."""

    path: Path
    values: Mapping[str, Any]

    @classmethod
    def of(cls, project: Path) -> ToolTable:
        """Read it; a project without one has an empty table."""
        path = project / "pyproject.toml"
        if not path.is_file():
            return cls(path, {})
        if sys.version_info >= (3, 11):
            import tomllib
        else:
            import tomli as tomllib
        try:
            text = path.read_text(encoding="utf-8")
            document = tomllib.loads(text)
        except RecursionError:
            raise ConfigError(f"{path}: nested too deep") from None
        except ValueError as error:
            raise ConfigError(f"{path}: not valid TOML: {error!s:.500}") from error
        tool = document.get("tool", {})
        values = tool.get("flame", {}) if isinstance(tool, Mapping) else {}
        if not isinstance(values, Mapping):
            raise ConfigError(f"{path}: [tool.flame] is {values!r:.200}, not a table")
        for key, value in values.items():
            cls._check(path, text, key, value)
        return cls(path, {_SPELLINGS.get(str(key), str(key)): value for key, value in values.items()})

    @staticmethod
    def _check(path: Path, text: str, key: str, value: Any) -> None:
        where = f"{path}, line {_line_of(text, key)}"
        key = _SPELLINGS.get(key, key)
        if key not in _KNOWN:
            message, hint = unknown_key(key, _KNOWN)
            raise ConfigError(f"{where}: {message} in [tool.flame]", hint=hint)
        texts = isinstance(value, list) and all(isinstance(item, str) for item in value)
        if key in (*_LISTS, "include", "exclude", "dependencies") and not texts:
            raise ConfigError(f"{where}: {key} must be a list of strings, not {value!r}", hint=f'write  {key} = ["…"]')
        if key in _TEXTS and not isinstance(value, str):
            raise ConfigError(f"{where}: {key} must be a string, not {value!r}", hint=f'write  {key} = "{value}"')


def _line_of(text: str, key: str) -> int:
    """The line of a key of ``[tool.flame]``; TOML parsers do not tell."""
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        table = re.match(r"\s*\[\[?\s*([^\]]+?)\s*\]", line)
        if table:
            inside = table.group(1).replace('"', "").startswith("tool.flame")
            if table.group(1) == f"tool.flame.{key}":
                return number
        elif inside and re.match(rf"\s*[\"']?{re.escape(key)}[\"']?\s*[=.]", line):
            return number
    return 1
