"""Environments made by pip keep the contract."""

from __future__ import annotations

import pytest
from flame_install_pip.pip import PipInstaller

from flame_host.api import Installer
from flame_host.testing.installers import InstallerContract


class TestPip(InstallerContract):
    @pytest.fixture
    def installer(self) -> Installer:
        return PipInstaller()
