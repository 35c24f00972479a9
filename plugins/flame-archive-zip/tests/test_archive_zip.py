"""The zip format keeps the contract."""

from __future__ import annotations

import pytest
from flame_archive_zip.zip import Zip

from flame_host.api import Archiver
from flame_host.testing.archivers import ArchiverContract


class TestZip(ArchiverContract):
    hard_links = False

    @pytest.fixture
    def provider(self) -> Archiver:
        return Zip()
