"""What has to be in order for Runners to work here."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flame_host.api import FlameError


@dataclass(frozen=True)
class Check:
    """Attributes:
    fix: what to do about it, when it is not ok.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


def checks() -> list[Check]:
    """All of them; one that fails does not stop the others."""
    return [_guarded(name, check) for name, check in _CHECKS.items()]


def _guarded(name: str, check: Callable[[], tuple[bool, str, str]]) -> Check:
    try:
        return Check(name, *check())
    except FlameError as error:
        return Check(name, False, error.message, error.hint)
    except Exception as error:
        return Check(name, False, f"{type(error).__name__}: {error}")


def _python() -> tuple[bool, str, str]:
    ok = sys.version_info >= (3, 10)
    return ok, f"{sys.version.split()[0]} at {sys.executable}", "install Python 3.10 or newer"


def _installer() -> tuple[bool, str, str]:
    from flame_host import Host

    installers = Host().catalog.all("installers")
    identities = [installer.identity() for installer in installers.values()]
    return bool(identities), ", ".join(identities) or "none", "pip install flame-install-uv uv"


def _root() -> tuple[bool, str, str]:
    from flame_host import Host

    root = Host().root
    with tempfile.NamedTemporaryFile(dir=root):
        pass
    free = shutil.disk_usage(root).free
    return free > 1 << 30, f"{root}, {free >> 30} GiB free", "free some room, or set FLAME_HOST_ROOT"


def _memory() -> tuple[bool, str, str]:
    place = Path("/dev/shm")
    if not place.is_dir():
        return True, "no /dev/shm; large values go through files", ""
    free = shutil.disk_usage(place).free
    return free > 64 << 20, f"/dev/shm, {free >> 20} MiB free", "start the container with --shm-size=1g"


def _plugins() -> tuple[bool, str, str]:
    from flame_host import Host

    records = Host().catalog.records
    broken = [record for record in records if record.status.value in ("failed", "incompatible")]
    detail = f"{len(records)} found" + "".join(f"; {record.name}: {record.reason}" for record in broken)
    return not broken, detail, "reinstall or uninstall: " + ", ".join(record.distribution for record in broken)


def _configuration() -> tuple[bool, str, str]:
    from flamepy._config.settings import resolve

    settings = resolve(Path.cwd(), {})
    return True, f"engine {settings.engine} ({settings.origins.get('engine', 'default')}), {settings.context.path or 'no flame.yaml'}", ""


def _engine() -> tuple[bool, str, str]:
    from flame_host import Host
    from flamepy._config.settings import resolve

    connection = Host().connect(resolve(Path.cwd(), {}).engine)
    try:
        names = [application.name for application in connection.list_applications()]
    finally:
        connection.close()
    return True, f"{connection.endpoint} answers; applications: {', '.join(names)}", ""


def _cores() -> tuple[bool, str, str]:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return True, f"{count} for workers", ""


_CHECKS = {
    "python": _python,
    "cores": _cores,
    "installer": _installer,
    "directory": _root,
    "memory": _memory,
    "plugins": _plugins,
    "settings": _configuration,
    "engine": _engine,
}
