"""What a Runner and its services are given as keywords, looked at before anything is done with it.

A wrong one is refused here, with the line that would have been right: later it would be an error of somebody else's, or no error at all.
"""

from __future__ import annotations

import difflib
import os
import re
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_host.api import ConfigError

_LISTS = ("dependencies", "exclude", "archivers", "installers", "serializers", "caches")
_TEXTS = ("engine", "storage", "python_version", "working_directory")
_VERSION = re.compile(r"(?:python)?\s*(?:[=<>!~]=?=?)?\s*\d+(?:\.\d+){0,2}.*|/.*")


def check_runner(name: object, keywords: Mapping[str, Any], unknown: Iterable[str]) -> None:
    """Refuse what a Runner cannot do anything with.

    Args:
        keywords: by their own names; None is not given. unknown: names no Runner has.
    """
    known = [*keywords, "excludes"]
    for key in unknown:
        raise TypeError(f"Runner() has no keyword {key!r}{_or_near(key, known)}")
    for key in _LISTS:
        _check_list(key, keywords.get(key), commas=key not in ("dependencies", "exclude"))
    for key in _TEXTS:
        _check_text(key, keywords.get(key))
    for requirement in keywords.get("dependencies") or ():
        check_requirement(requirement, "Runner(dependencies=)")
    _check_python(keywords.get("python_version"))
    _check_storage(keywords.get("storage"))
    _check_variables(keywords.get("environments"))
    _check_project(keywords.get("project"))
    _check_environment()


def check_service(served: object, autoscale: object, stateful: object, spec: Mapping[str, Any], known: Sequence[str]) -> None:
    """Refuse an object with nothing to be called, and options no service has."""
    plain = type(served).__module__ == "builtins" and not isinstance(served, types.ModuleType)
    if not callable(served) and (plain or hasattr(served, "add_done_callback")):
        raise TypeError(
            f"rr.service() was given {_indefinite(served)}, in which there is nothing to be called; "
            "pass the function itself, rr.service(fn), not what it returns, rr.service(fn(…))"
        )
    for name, value in (("autoscale", autoscale), ("stateful", stateful)):
        if (value is not None and not isinstance(value, (bool, int))) or (isinstance(value, int) and value not in (0, 1)):
            raise TypeError(f"{name} is {value!r}; it is True or False. Arguments of a constructor go in args=(…,) and kwargs={{…}}")
    for key, value in spec.items():
        if key not in known:
            raise TypeError(f"rr.service() has no option {key!r}{_or_near(key, known)}")
        _check_number(key, value)


def check_requirement(text: str, where: str) -> None:
    """A requirement as pyproject.toml has it; a path or URL is left to the installer."""
    from packaging.requirements import InvalidRequirement, Requirement

    if "/" in text or text.startswith(("-", ".")):
        return
    try:
        Requirement(text)
    except InvalidRequirement as error:
        fixed = re.sub(r"(?<![=<>!~])=(?!=)", "==", text)
        what = str(error).splitlines()[0]
        hint = f'write  "{fixed}"' if fixed != text else 'write a name and versions, as  "numpy>=1.26,<3"'
        raise ConfigError(f"{where}: {text!r} is no requirement: {what}", hint=hint) from None


def refuse_while_imported(name: str) -> None:
    """A worker imports the module of what it serves: a program that stands there would run once more, in every worker."""
    if "FLAME_SESSION" not in os.environ:
        return
    frame = sys._getframe(1)
    while frame is not None:
        spec = frame.f_globals.get("__spec__")
        if frame.f_code.co_name == "<module>" and getattr(spec, "_initializing", False):
            raise ConfigError(
                f"{frame.f_code.co_filename}, line {frame.f_lineno}: Runner {name!r} is opened while a worker imports this module",
                hint='put the program of the module under  if __name__ == "__main__":  or into a file of its own',
            )
        frame = frame.f_back  # type: ignore[assignment]


def _check_list(key: str, value: object, *, commas: bool) -> None:
    if value is None or (commas and isinstance(value, str)):  # "tar.gz,zip", as a variable has it
        return
    if isinstance(value, str):
        raise ConfigError(f"{key} is one string, {value!r}", hint=f"write a list:  {key}=[{value!r}]")
    if isinstance(value, Mapping) or not isinstance(value, Iterable):
        raise ConfigError(f"{key} is {value!r}, {_indefinite(value)}", hint=f'write a list of strings:  {key}=["…"]')
    for item in value:
        if not isinstance(item, str):
            raise ConfigError(f"{key} has {item!r}, {_indefinite(item)}, among its strings", hint=f'write it as a string:  "{item}"')


def _check_text(key: str, value: object) -> None:
    if value is None or isinstance(value, str):
        return
    if isinstance(value, Path):
        raise ConfigError(f"{key} is a path, {value}", hint=f"write  {key}=str(path)")
    raise ConfigError(f"{key} is {value!r}, {_indefinite(value)}", hint=f'write it as a string:  {key}="{value}"')


def _check_python(value: object) -> None:
    if isinstance(value, str) and value and not _VERSION.fullmatch(value.strip()):
        raise ConfigError(f"python_version {value!r} is no version of Python", hint='write  python_version="3.12"')


def _check_storage(value: object) -> None:
    if isinstance(value, str) and value and "://" not in value and not value.startswith("file:"):
        raise ConfigError(f"storage {value!r} is not a URL", hint=f'write  storage="{Path(value).absolute().as_uri()}"')


def _check_variables(value: object) -> None:
    if value is None:
        return
    if not isinstance(value, Mapping):
        raise ConfigError(f"environments is {_indefinite(value)}, not names and values", hint='write  environments={"NAME": "value"}')
    for name, content in value.items():
        if not isinstance(name, str) or not name or "=" in name or "\0" in name:
            raise ConfigError(f"environments: {name!r} cannot be the name of a variable", hint='write  environments={"NAME": "value"}')
        if not isinstance(content, str):
            raise ConfigError(
                f"environments[{name!r}] is {content!r}, {_indefinite(content)}; variables are strings",
                hint=f'write  environments={{{name!r}: "{content}"}}',
            )


def _check_project(value: object) -> None:
    if value is not None and Path(str(value)).is_file():
        raise ConfigError(f"project {value} is a file", hint="name the directory that is to be packed, or package=False to send no files")


def _check_number(key: str, value: object) -> None:
    if key in ("session_id", "limits"):
        return
    if key == "isolation":
        if value not in ("", "process"):
            raise ConfigError(f"isolation is {value!r}", hint='write  isolation="process", or leave it out')
        return
    whole = key not in ("timeout",)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        raise TypeError(f"{key} is {value!r}, {_indefinite(value)}; it is {'a whole number' if whole else 'a number of seconds'}")
    if key != "priority" and value < 0:
        raise ValueError(f"{key} is {value!r}; it cannot be less than nothing")


_READ = tuple(
    f"FLAME_{name}"
    for name in [
        "ENGINE",
        "ENDPOINT",
        "STORAGE",
        "PROJECT",
        "PACKAGE_LIMIT",
        "PYTHON",
        "LOGS",
        "REFRESH",
        "STORES",
        "ARCHIVERS",
        "INSTALLERS",
        "SERIALIZERS",
        "CACHES",
        "POLICY",
        "CONFIG",
        "PROGRESS",
        "DEBUG",
        "CA_FILE",
        "CACHE_ENDPOINT",
        "CACHE_STORAGE",
        "CACHE_KEY",
        "CACHE_KEY_FILE",
    ]
)


def _check_environment() -> None:
    """A variable that is nearly one of ours was meant to be it."""
    for variable in os.environ:
        if variable.startswith("FLAME_") and variable not in _READ:
            near = difflib.get_close_matches(variable, _READ, 1, 0.9)
            if near and not variable.startswith("FLAME_HOST_") and variable not in ("FLAME_ENDPOINTS", "FLAME_ENDPOINT_KEY", "FLAME_LOG"):
                raise ConfigError(f"the environment has {variable}, which nothing reads", hint=f"did you mean {near[0]}?")


def _or_near(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), 1, 0.6)
    return f"; did you mean {near[0]!r}?" if near else f"; it has: {', '.join(sorted(known))}"


def _indefinite(value: object) -> str:
    kind = type(value).__name__
    return "None" if value is None else f"{'an' if kind[0].lower() in 'aeiou' else 'a'} {kind}"
