"""Offers the ``s3`` store."""

from __future__ import annotations

from collections.abc import Iterable

from flame_host.api import Store, hookimpl


@hookimpl
def flame_stores() -> Iterable[Store]:
    from flame_fetch_s3.s3_store import S3PackageStore

    return [S3PackageStore()]
