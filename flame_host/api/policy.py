"""What must not be done, whoever asks: one parser for all places that may say it, one rule for putting them together.

``pickle = deny``: no format that runs code when it is read is in any decoder table, and functions and classes go by import path, inside
the package only. ``builds = deny``: nothing is built while an environment is made, since a build runs code of the package's author.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from flame_host.api.errors import ConfigError, FormatNotAllowedError
from flame_host.api.formats import Serializer
from flame_host.api.sessions import Plan

ALLOW, DENY = "allow", "deny"
KEYS = ("pickle", "builds")


def parse_policy(value: object, origin: str = "policy") -> dict[str, str]:
    """A policy as a table, or as text (``"pickle=deny,builds=deny"``).

    Args:
        origin: where it was said, for messages.

    Raises:
        ConfigError: a word that is not known. A policy that is misspelt must not pass for one that allows.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        said = [item.partition("=") for item in value.split(",") if item.strip()]
        pairs: list[tuple[Any, Any]] = [(name, word) for name, _, word in said]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ConfigError(f"{origin}: a policy is a table of words, not {value!r:.80}", hint="write  pickle = deny")
    found: dict[str, str] = {}
    for key, decision in pairs:
        name, word = str(key).strip().lower(), str(decision).strip().lower()
        if name not in KEYS or word not in (ALLOW, DENY):
            known = "; ".join(f"{known} = {ALLOW} or {DENY}" for known in KEYS)
            raise ConfigError(f"{origin}: {name:.40} = {word:.40} is no policy", hint=f"known are: {known}")
        found = intersect_policies(found, {name: word})
    return found


def intersect_policies(*policies: Mapping[str, str]) -> dict[str, str]:
    """The strictest of each key: ``deny`` wins, wherever it is said."""
    merged: dict[str, str] = {}
    for policy in policies:
        for key, value in policy.items():
            merged[key] = DENY if DENY in (value, merged.get(key)) else value
    return merged


def denies(policy: Mapping[str, str], what: str) -> bool:
    return policy.get(what) == DENY


def decoders(plan: Plan, find: Callable[[str], Serializer], policy: Mapping[str, str] | None = None) -> dict[str, Serializer]:
    """Every format a plan admits, and what reads it: the decoder table of whoever takes the plan's payloads.

    Args:
        find: looks a format up by name. policy: besides the plan's own.

    Raises:
        FormatNotAllowedError: one of them runs code when it is read, and policy denies that.
    """
    table = {format: find(format) for format in plan.serializers}
    for format, serializer in table.items():
        check_format(format, serializer, intersect_policies(plan.policy, policy or {}))
    return table


def check_format(format: str, serializer: Serializer, policy: Mapping[str, str]) -> None:
    """Raises `FormatNotAllowedError` for a format that runs code when it is read, where policy denies that."""
    if denies(policy, "pickle") and "executes-code" in serializer.traits:
        raise FormatNotAllowedError(
            f"format {format} runs code when it is read, and policy says pickle = deny", hint='use msgpack: serializers = ["msgpack"]'
        )
