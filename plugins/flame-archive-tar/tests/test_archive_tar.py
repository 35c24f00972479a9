"""The tar formats keep the contract."""

from __future__ import annotations

import pytest
from flame_archive_tar.plugin import flame_archivers

from flame_host.api import Archiver
from flame_host.testing.archivers import ArchiverContract


@pytest.mark.parametrize("format", [provider.name for provider in flame_archivers()])
class TestTar(ArchiverContract):
    @pytest.fixture
    def provider(self, format: str) -> Archiver:
        return next(provider for provider in flame_archivers() if provider.name == format)
