"""Registration: the tar formats."""

from __future__ import annotations

from collections.abc import Iterable

from flame_archive_tar.tar import Tar, TarBz2, TarGz, TarXz
from flame_host.api import Archiver, hookimpl


@hookimpl
def flame_archivers() -> Iterable[Archiver]:
    return [TarGz(), TarXz(), TarBz2(), Tar()]
