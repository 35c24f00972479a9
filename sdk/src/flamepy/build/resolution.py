"""From what a decorator was given to a resource with a name, a type and settings."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import flamepy._remote.resources
import flamepy.flash.types
from flame_host.api import ConfigError
from flamepy.build.errors import Problem
from flamepy.build.values import (
    Collection,
    Constant,
    DecoratorValue,
    Definition,
    EnvironmentValue,
    ResourceValue,
    Unknown,
    Value,
    is_known,
    plain,
)
from flamepy.flash.endpoint import checked_route

__all__ = ["ResolvedResource", "is_balanced", "resolve_resource", "route_of", "texts_of"]

_SETTINGS = ("cpu", "gpu", "memory", "workers", "env", "dependencies", "system_dependencies", "options", "max_concurrency")


@dataclass(frozen=True)
class ResolvedResource:
    """Attributes:
    settings: as they stand in the manifest; a variable of ``env`` whose value is not written in the program is None.
    to_set: variables of ``env`` that come from the environment: where from, and the default that is written.
    """

    name: str
    type_name: str
    settings: Mapping[str, Any]
    to_set: Mapping[str, tuple[str, str | None]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    given: frozenset[str] = frozenset()


_MEANS = {"workersMin": "workers", "workersMax": "workers", "instanceIds": "cpu", "gpuCount": "gpu", "gpu_count": "gpu"}
"""Keywords of another SDK, and the setting they say."""
DEFAULT = "default"


def resolve_resource(decorator: DecoratorValue, file: str, function: str = "") -> tuple[ResolvedResource | None, list[Problem]]:
    """The resource a decorator names, or why it cannot be told.

    Args:
        file: of the decorator. function: that it is put on.
    """
    value = decorator.resource
    if value is None:
        return ResolvedResource(DEFAULT, "Resource", _settings_of("Resource", {"name": DEFAULT})), []
    if not isinstance(value, ResourceValue):
        why = value.why if isinstance(value, Unknown) else f"it is a {type(value).__name__.lower()}, and no resource"
        return None, [Problem(file, decorator.line, f"the resource of @remote cannot be resolved: {why}")]
    given, problems = _given(value)
    if problems:
        return None, problems
    if value.is_client:
        return None, [Problem(file, decorator.line, "the resource is a client of something that is deployed elsewhere")]
    by_function = value.is_endpoint and not decorator.has_route
    name = given.pop("name", None) or ("" if by_function else value.variable) or function
    notes = _notes(value)
    env, to_set, more = _environment(value)
    try:
        settings = _settings_of(value.base, {"name": name, **given, **({"env": env} if env is not None else {})})
    except (ConfigError, TypeError, ValueError) as error:
        return None, [Problem(value.file, value.line, getattr(error, "message", str(error)))]
    given_keys = frozenset(_MEANS.get(key, key) for key in value.settings)
    return ResolvedResource(name, value.type_name, settings, to_set, (*notes, *more), given_keys), []


def _given(value: ResourceValue) -> tuple[dict[str, Any], list[Problem]]:
    """Settings that can be read, ``env`` apart."""
    given: dict[str, Any] = {}
    problems = []
    for key, setting in value.settings.items():
        if key == "env":
            continue
        if key not in ("name", *_SETTINGS, "workersMin", "workersMax") and not is_known(setting):
            given[key] = value.texts.get(key, "?")  # only a platform knows what to make of it
            continue
        try:
            given[key] = plain(setting)
        except LookupError as error:
            problems.append(Problem(value.file, value.line, f"{key} of the resource cannot be resolved: {error.args[0]}"))
    if not problems and not isinstance(given.get("name", ""), (str, type(None))):
        problems.append(Problem(value.file, value.line, f"name of the resource is {given['name']!r}; it must be text"))
    for key in ("dependencies", "system_dependencies"):
        if isinstance(value.settings.get(key), Collection) and None in (given.get(key) or ()):
            problems.append(
                Problem(value.file, value.line, f"{key} of the resource holds something that cannot be read without running it")
            )
    return given, problems


def _notes(value: ResourceValue) -> tuple[str, ...]:
    """Settings whose value is the environment's, and was taken as the default says."""
    return tuple(
        f"{value.file}:{value.line}: {key} of {value.variable or value.type_name} comes from the variable {setting.variable}; "
        f"its default was taken: {plain(setting)!r}"
        for key, setting in value.settings.items()
        if key != "env" and isinstance(setting, EnvironmentValue) and is_known(setting)
    )


def _environment(value: ResourceValue) -> tuple[dict[str, str | None] | None, dict[str, tuple[str, str | None]], list[str]]:
    """Variables of the workers, those of them that are to be set where they run, and what could not be read."""
    given = value.settings.get("env")
    if given is None or given == Constant(None):
        return None, {}, []
    if not isinstance(given, Collection) or given.kind != "dict":
        why = given.why if isinstance(given, Unknown) else "it is not written as a dict"
        return {}, {}, [f"{value.file}:{value.line}: env of {value.variable or value.type_name} is to be set where it runs: {why}"]
    env: dict[str, str | None] = {}
    to_set: dict[str, tuple[str, str | None]] = {}
    for key, entry in {**given.entries, **given.later}.items():
        source = entry.variable if isinstance(entry, EnvironmentValue) else ""
        try:
            known = plain(entry)
        except LookupError:
            known = None
        env[str(key)] = None if known is None else str(known)
        if source or known is None:
            to_set[str(key)] = (source, env[str(key)])
    if not given.spoiled or given.later:
        return env, to_set, []
    return env, to_set, [f"{value.file}:{value.line}: more may be put into env than can be read: {given.spoiled}"]


def _settings_of(base: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked and completed by the class the program itself will use."""
    home = flamepy._remote.resources if hasattr(flamepy._remote.resources, base) else flamepy.flash.types
    env = given.get("env") or {}
    written = {key: value for key, value in env.items() if value is not None}
    resource = getattr(home, base)(**{**given, **({"env": written} if "env" in given else {})})
    settings = {key: getattr(resource, key) for key in _SETTINGS}
    settings["env"] = {key: None if value is None else str(value) for key, value in env.items()}
    settings["options"] = dict(settings["options"])
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


def is_balanced(resource_type: str) -> bool:
    """Whether it is reached by HTTP requests, and has no queue."""
    return "LoadBalancer" in resource_type


def route_of(decorator: DecoratorValue, file: str, definition: Definition) -> tuple[tuple[str, str] | None, list[Problem]]:
    """HTTP method and path a function answers; None if it answers jobs."""
    if not decorator.has_route:
        return None, []
    if isinstance(definition.node, ast.ClassDef):
        return None, [Problem(file, decorator.line, f"{definition.qualname} is a class; a route is answered by a function")]
    try:
        given = [None if key not in decorator.options else plain(decorator.options[key]) for key in ("method", "path")]
        return checked_route(*given), []
    except LookupError as error:
        return None, [Problem(file, decorator.line, f"the route of {definition.qualname} cannot be resolved: {error.args[0]}")]
    except ConfigError as error:
        return None, [Problem(file, decorator.line, f"{definition.qualname}: {error}")]


def texts_of(value: Value | None, what: str, file: str, line: int) -> tuple[tuple[str, ...], list[Problem]]:
    """A list of text that an argument must be."""
    if value is None:
        return (), []
    try:
        texts = plain(value)
    except LookupError as error:
        return (), [Problem(file, line, f"{what} of @remote cannot be resolved: {error.args[0]}")]
    if texts is None:
        return (), []
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        return (), [Problem(file, line, f"{what} of @remote must be a list of text that can be read without running it")]
    return tuple(texts), []
