"""From what a decorator was given to a resource with a name, a type and settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import flamepy._remote.resources
from flame_host.api import ConfigError
from flamepy.build.errors import Problem
from flamepy.build.values import Collection, DecoratorValue, ResourceValue, Unknown, Value, is_known, plain

__all__ = ["ResolvedResource", "resolve_resource", "texts_of"]

_SETTINGS = ("cpu", "gpu", "memory", "workers", "env", "dependencies", "system_dependencies", "options")


@dataclass(frozen=True)
class ResolvedResource:
    """Attributes:
    settings: as they stand in the manifest; a variable of ``env`` whose value is not written in the program is None.
    """

    name: str
    type_name: str
    settings: Mapping[str, Any]


DEFAULT = ResolvedResource("default", "Resource", {})


def resolve_resource(decorator: DecoratorValue, file: str) -> tuple[ResolvedResource | None, list[Problem]]:
    """The resource a decorator names, or why it cannot be told.

    Args:
        file: of the decorator.
    """
    value = decorator.resource
    if value is None:
        return ResolvedResource(DEFAULT.name, DEFAULT.type_name, _settings_of("Resource", {"name": DEFAULT.name})), []
    if not isinstance(value, ResourceValue):
        why = value.why if isinstance(value, Unknown) else f"it is a {type(value).__name__.lower()}, and no resource"
        return None, [Problem(file, decorator.line, f"the resource of @remote cannot be resolved: {why}")]
    given, problems = _given(value)
    if problems:
        return None, problems
    try:
        settings = _settings_of(value.base, given)
    except (ConfigError, TypeError) as error:
        return None, [Problem(value.file, value.line, getattr(error, "message", str(error)))]
    return ResolvedResource(given["name"], value.type_name, settings), []


def _given(value: ResourceValue) -> tuple[dict[str, Any], list[Problem]]:
    given: dict[str, Any] = {}
    problems = []
    for key, setting in value.settings.items():
        if key not in ("name", *_SETTINGS) and not is_known(setting):
            given[key] = value.texts.get(key, "?")  # only a platform knows what to make of it
            continue
        try:
            given[key] = plain(setting)
        except LookupError as error:
            problems.append(Problem(value.file, value.line, f"{key} of the resource cannot be resolved: {error.args[0]}"))
    if "name" not in value.settings:
        problems.append(Problem(value.file, value.line, f'{value.type_name}(…) has no name; write  {value.type_name}(name="…")'))
    elif not problems and not isinstance(given["name"], str):
        problems.append(Problem(value.file, value.line, f"name of the resource is {given['name']!r}; it must be text"))
    for key in ("dependencies", "system_dependencies"):
        if isinstance(value.settings.get(key), Collection) and None in (given.get(key) or ()):
            problems.append(
                Problem(value.file, value.line, f"{key} of the resource holds something that cannot be read without running it")
            )
    return given, problems


def _settings_of(base: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Checked and completed by the class the program itself will use."""
    resource = getattr(flamepy._remote.resources, base)(**given)
    settings = {key: getattr(resource, key) for key in _SETTINGS}
    settings["env"] = dict(settings["env"])
    settings["options"] = dict(settings["options"])
    return {key: list(value) if isinstance(value, tuple) else value for key, value in settings.items()}


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
