"""Registration: the zip format."""

from __future__ import annotations

from collections.abc import Iterable

from flame_archive_zip.zip import Zip
from flame_host.api import Archiver, hookimpl


@hookimpl
def flame_archivers() -> Iterable[Archiver]:
    return [Zip()]
