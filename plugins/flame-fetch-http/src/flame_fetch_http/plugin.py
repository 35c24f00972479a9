"""Offers the ``http`` and ``https`` store."""

from __future__ import annotations

from collections.abc import Iterable

from flame_host.api import Store, hookimpl


@hookimpl
def flame_stores() -> Iterable[Store]:
    from flame_fetch_http.http_store import HttpStore

    return [HttpStore()]
