"""TOML files as tables, with errors that name the file."""

from __future__ import annotations

import datetime
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flame_host.api import ConfigError


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table; a broken one is `ConfigError` with the file's name and the line."""
    try:
        return parse_toml(path.read_text(encoding="utf-8"), path.name)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8 ({error})") from error


def parse_toml(text: str, name: str) -> dict[str, Any]:
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: {error}", hint="mend the line it names") from error


def strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"pyproject.toml {where} is {value!r}", hint="a list of strings is wanted")
    return list(value)


def plain(value: Any) -> Any:
    """As JSON can keep it: dates become their text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else value
