"""Registration."""

from __future__ import annotations

from flame_host.api import Installer, hookimpl
from flame_install_uv.uv import UvInstaller


@hookimpl
def flame_installers() -> list[Installer]:
    return [UvInstaller()]
