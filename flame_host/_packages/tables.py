"""What stands in tables of TOML: looked at before it is used, for anybody may have written it."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

from flame_host.api import ConfigError


def at(table: Any, *names: str) -> Mapping[str, Any]:
    """The table of that name in a table, empty when there is none.

    Raises:
        ConfigError: something else has that name.
    """
    for index, name in enumerate(names):
        table = table.get(name, {})
        if not isinstance(table, Mapping):
            raise ConfigError(f"pyproject.toml [{'.'.join(names[: index + 1])}] is {table!r:.200}", hint="a table is wanted")
    found: Mapping[str, Any] = table
    return found


def strings(value: Any, where: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise ConfigError(f"pyproject.toml {where} is {value!r:.200}", hint="a list of strings is wanted")
    return list(value)


def plain(value: Any) -> Any:
    """As JSON can keep it: dates become their text."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(item) for item in value]
    return value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else value
