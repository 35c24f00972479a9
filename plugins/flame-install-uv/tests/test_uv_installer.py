"""The uv installer keeps the contract."""

from __future__ import annotations

import pytest
from flame_install_uv.uv import UvInstaller

from flame_host.testing.installers import InstallerContract


class TestUv(InstallerContract):
    @pytest.fixture
    def provider(self) -> UvInstaller:
        return UvInstaller()
