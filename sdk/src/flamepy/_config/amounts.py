"""Amounts as users write them: ``"cpu=0.5,mem=16g,gpu=1"``, ``"4GiB"``, ``"500 MB"``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flame_host.api import ConfigError, Resources

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([kmgt])(i?)(b?))?b?", re.IGNORECASE)
_NAMES = {"cpu": "cpu", "mem": "memory", "memory": "memory", "gpu": "gpu"}


def resources_of(wanted: Resources | Mapping[str, Any] | str | None) -> Resources | None:
    """What a worker needs; None when nothing was said.

    Raises:
        ConfigError: a resource that is not known, or an amount that is none.
    """
    if wanted is None or isinstance(wanted, Resources):
        return wanted
    pairs: Mapping[str, Any] = _pairs(wanted) if isinstance(wanted, str) else wanted
    values: dict[str, Any] = {}
    for key, value in pairs.items():
        name = _NAMES.get(str(key).strip().lower())
        if name is None:
            raise ConfigError(f"unknown resource {key!r}", hint='known are cpu, mem (or memory) and gpu: resreq="cpu=1,mem=2g"')
        values[name] = bytes_of(value, f"resreq {key}") if name == "memory" else _number(value, name)
    return Resources(**values)


def _pairs(text: str) -> dict[str, str]:
    items = [item.partition("=") for item in text.split(",") if item.strip()]
    for name, sign, value in items:
        if not sign or not value.strip():
            raise ConfigError(f"{name.strip()!r} in {text!r} has no amount", hint='write resreq="cpu=1,mem=2g"')
    return {name.strip(): value.strip() for name, _, value in items}


def _number(value: Any, name: str) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ConfigError(f"{value!r} is no number of {name}", hint=f'write resreq="{name}=1"') from None
    if not 0 <= number < float("inf") or (name == "gpu" and number != int(number)):
        raise ConfigError(f"{value!r} is no number of {name}", hint="a whole one for gpu" if name == "gpu" else "0.5 is half a core")
    return int(number) if number == int(number) else number


def bytes_of(size: int | str, what: str) -> int:
    """``"2g"`` and ``"2GiB"`` are 2 × 1024³ bytes, as Flame and Linux read them; ``"2GB"`` are 2 × 1000³.

    Args:
        what: is being said, for the message.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    match = _SIZE.fullmatch(str(size).strip())
    if match is None:
        raise ConfigError(f"{what} is {size!r}, which is no size", hint="write bytes, or a number with K, M, G or T")
    base = 1000 if match[4] and not match[3] else 1024
    return int(float(match[1]) * base ** (" kmgt".index(match[2].lower()) if match[2] else 0))
