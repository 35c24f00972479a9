"""Texts that people get to see, without what was meant for a server only."""

from __future__ import annotations

import re

_USER = re.compile(r"://[^/\s?#]*@")
_QUERY = re.compile(r"(://[^\s?#]*\?)([^\s#'\"<>]*)")
_VALUE = re.compile(r"=[^&;]*")
_HARMLESS = re.compile(r"ssh://[^/\s?#:@]*@")


def without_secrets(text: str) -> str:
    """User names, passwords and the values of queries in every URL of a text become ``***``: tokens travel in all three."""
    if "://" not in text:
        return text
    text = _USER.sub(lambda found: found[0] if _HARMLESS.match("ssh" + found[0]) and _by_ssh(text, found.start()) else "://***@", text)
    return _QUERY.sub(lambda found: found[1] + _VALUE.sub("=***", found[2]), text)


def _by_ssh(text: str, place: int) -> bool:
    """``ssh://git@…`` names an account, not a secret."""
    return text[:place].endswith("ssh")
