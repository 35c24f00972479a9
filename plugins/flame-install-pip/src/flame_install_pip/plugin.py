"""Registration."""

from __future__ import annotations

from flame_host.api import Installer, hookimpl
from flame_install_pip.pip import PipInstaller


@hookimpl
def flame_installers() -> list[Installer]:
    return [PipInstaller()]
