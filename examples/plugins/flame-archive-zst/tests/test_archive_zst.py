"""tar.zst keeps the contract."""

from __future__ import annotations

import pytest
from flame_archive_zst.zst import ZstdTar

from flame_host.api import Archiver
from flame_host.testing.archivers import ArchiverContract


class TestZstdTar(ArchiverContract):
    @pytest.fixture
    def provider(self) -> Archiver:
        return ZstdTar()
