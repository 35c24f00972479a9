"""Where an application process serves: a Unix socket whose path its executor manager chose."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from flame_host.api import ConfigError

ENDPOINT_VARIABLE = "FLAME_INSTANCE_ENDPOINT"
PARENT = os.getppid()
"""Who started this process; read early, for it may be gone before the process is ready. 1 when it is gone already, or is init."""
_PATH_LIMIT = 107
"""Bytes of a Unix socket's path: ``sun_path`` less its terminating zero."""


def endpoint() -> Path:
    """Where to serve, as the executor manager says it.

    Raises:
        ConfigError: it does not say.
    """
    value = os.environ.get(ENDPOINT_VARIABLE, "")
    if not value:
        raise ConfigError(
            f"{ENDPOINT_VARIABLE} is not set",
            hint="this program is started by a Flame executor manager, which sets it to the path of the Unix socket to serve on;"
            " to try it by hand, set it to a path such as /tmp/flame.sock",
        )
    return Path(value.removeprefix("unix://").removeprefix("unix:"))


def check_path(path: Path) -> None:
    """Say what is wrong with a path before gRPC does, which tells only that binding failed.

    Raises:
        OSError: no socket can be made there.
    """
    size = len(os.fsencode(path))
    if size > _PATH_LIMIT:
        raise OSError(f"the path has {size} bytes and a Unix socket's may have {_PATH_LIMIT}")
    if not path.parent.is_dir():
        raise OSError(f"there is no directory {path.parent}")
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError("a file that is no socket stands there")
