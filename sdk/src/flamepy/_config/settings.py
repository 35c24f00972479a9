"""What holds for one Runner, from all places that may say it.

Precedence: keyword of the Runner, ``FLAME_*`` in the environment, ``[tool.flame]`` in the project's ``pyproject.toml``, ``flame.yaml``,
default. Every value knows where it comes from. Only policies are not overridden but added up: the strictest wins.
"""

from __future__ import annotations

import logging
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from flame_host.api import ConfigError, Resources, Want, Wants, intersect_policies, parse_policy
from flamepy._config.amounts import bytes_of, resources_of
from flamepy._config.flame_yaml import FlameContext, merged_excludes, unknown_key
from flamepy._package.sizes import MOST_BYTES

_LISTS = ("stores", "archivers", "installers", "serializers", "caches")
_TEXTS = ("engine", "storage", "python", "logs", "package_limit")
_KNOWN = {*_LISTS, *_TEXTS, "include", "exclude", "dependencies", "extras", "groups", "policy", "build", "resources"}
_VARIABLES = {**{f"FLAME_{name.upper()}": name for name in (*_LISTS, "engine", "storage", "python", "logs", "package_limit")}}
_SPELLINGS = {"excludes": "exclude", "includes": "include"}
"""As other configurations write it; understood."""
DEFAULT_ENGINE = "local"
DEBUGGING_ENGINE = "inline"
"""Where tasks run under ``flame debug`` and in tests: in this process."""
logger = logging.getLogger("flamepy.config")
_LOGS = ("all", "errors", "none")


@dataclass(frozen=True)
class Settings:
    """Attributes:
    engine: endpoint, never empty; with options that say how it is reached. cache: endpoint of the objects' cache, where it is not the
        engine's own. resources: what a worker of a service needs that does not say it itself. storage: empty for the host's own directory.
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
    cache: str = ""
    resources: Resources | None = None
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
    engine, cache = _reached(_endpoint(first("engine", "")), origins, context)
    excludes = [*(context.package.excludes if context.package else ()), *tool.values.get("exclude", ()), *(keywords.get("excludes") or ())]
    return Settings(
        engine=engine,
        cache=cache,
        storage=storage,
        excludes=tuple(merged_excludes(excludes)),
        includes=tuple(tool.values.get("include", ())),
        dependencies=tuple(first("dependencies", ())),
        python=first("python", ""),
        logs=logs,
        wants=Wants(families),
        policy=intersect_policies(*(parse_policy(layer.values.get("policy"), layer.origin("policy")) for layer in layers)),
        context=context,
        resources=_resources(first("resources", None), origins.get("resources", "")),
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
    """With and without the colon it is one engine, and must share one connection."""
    return (engine if ":" in engine else f"{engine}:") if engine else f"{DEFAULT_ENGINE}:"


_CLUSTERS = {"ca_file": "ca_file", "cache": "cache", "template": "template"}
"""Option of an endpoint → attribute of the context: what a cluster is besides its endpoint."""


def _reached(engine: str, origins: dict[str, str], context: FlameContext) -> tuple[str, str]:
    """The engine's endpoint with what was said of the way there, and the endpoint of another cache for an engine that has none to name.

    An engine elsewhere is told; one of this machine has nowhere to go, so objects go to the cache that was named, and certificates are
    for the way to that.
    """
    # What flame.yaml says of a cluster is of that cluster, and not of another that was named in its place.
    same = not origins.get("engine") or origins["engine"] in (context.origins.get("endpoint"), "FLAME_ENDPOINT")
    said = {
        option: getattr(context, attribute)
        for option, attribute in _CLUSTERS.items()
        if attribute in context.origins and (same or context.origins[attribute].startswith("FLAME_"))
    }
    if "//" in engine:
        return (f"{engine}?{urlencode(said)}" if said and "?" not in engine else engine), ""
    cache = said.get("cache", "")
    if cache:
        origins["cache"] = context.origins["cache"]
    if "ca_file" in said:
        if not cache or cache.startswith("file:"):
            logger.warning("%s: nothing is reached over a network, so nothing is checked by its certificates", context.origins["ca_file"])
        elif "?" not in cache:
            cache = f"{cache}?{urlencode({'ca_file': said['ca_file']})}"
    return engine, cache


def _resources(value: Any, origin: str) -> Resources | None:
    try:
        return resources_of(value)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error.message}", hint=error.hint) from error


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
            text = path.read_text(encoding="utf-8-sig")  # as uv takes it
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
