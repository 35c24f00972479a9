"""The pip installer keeps the contract."""

from __future__ import annotations

import pytest
from flame_install_pip.pip import PipInstaller

from flame_host.testing.installers import InstallerContract


class TestPip(InstallerContract):
    @pytest.fixture
    def provider(self) -> PipInstaller:
        return PipInstaller()
