"""Keys of caches, ``<application>/<session>/<object>``, and their prefixes, as every store of objects reads them."""

from __future__ import annotations

import re

from flame_host.api.errors import CacheError

_PART = re.compile(r"[^/\\\x00-\x1f\x7f]{1,255}")


def parts_of(key: str, *counts: int) -> list[str]:
    """Split into parts and check each: nothing may climb out of its session, be it a directory or a dictionary.

    Raises:
        CacheError: it has another number of parts than one of ``counts``, or a part that no key may have.
    """
    parts = key.split("/")
    if len(parts) not in counts:
        raise CacheError(f"{key!r} is not a key of {' or '.join(map(str, counts))} parts", hint="write <application>/<session>/<object>")
    for part in parts:
        if part in (".", "..") or not _PART.fullmatch(part):
            raise CacheError(f"{key!r} has the part {part!r}, which no key may have", hint="use plain names without slashes")
    return parts
