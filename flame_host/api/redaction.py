"""Texts that people get to see, without what was meant for a server only."""

from __future__ import annotations

import re

_USER = re.compile(r"(ssh)?://([^/\s?#]*)@")
_QUERY = re.compile(r"(?<=\S)\?[\w.~%-]+=[^\s#'\"<>]*")
_VALUE = re.compile(r"=[^&;]*")


def without_secrets(text: str) -> str:
    """User names, passwords and the values of queries in every URL of a text become ``***``: tokens travel in all three."""
    if "://" in text:
        text = _USER.sub(_nobody, text)
    if "?" in text:
        text = _QUERY.sub(lambda found: _VALUE.sub("=***", found[0]), text)
    return text


def _nobody(found: re.Match[str]) -> str:
    """``ssh://git@…`` names an account, not a secret."""
    scheme, user = found[1] or "", found[2]
    return found[0] if scheme and ":" not in user else f"{scheme}://***@"
