"""Registration."""

from __future__ import annotations

from collections.abc import Iterable

from flame_archive_zst.zst import ZstdTar
from flame_host.api import Archiver, hookimpl


@hookimpl
def flame_archivers() -> Iterable[Archiver]:
    return [ZstdTar()]
