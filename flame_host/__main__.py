"""The executor entrypoint: ``python -m flame_host`` serves ``flame.v1.Instance`` for a Flame executor manager."""

from __future__ import annotations

import logging
import os
import sys

from flame_host.api import ConfigError

USAGE, UNAVAILABLE = 2, 3
"""Exit codes: something it needs to be told is missing; something it needs to be installed is."""


def main() -> int:
    """Serve until SIGTERM; returns the exit code."""
    from flame_host.wire.endpoint import endpoint

    logging.basicConfig(level=_level(os.environ.get("FLAME_LOG", "info")), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    try:
        path = endpoint()
        from flame_host.wire.hosting.service import serve_host

        serve_host(path)
    except ConfigError as error:
        sys.stderr.write(f"flame-host: {error}\n")
        return USAGE
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("grpc", "google"):
            raise
        sys.stderr.write(f"flame-host: serving needs {error.name}\n  → pip install 'flame-host[grpc]'\n")
        return UNAVAILABLE
    return 0


def _level(name: str) -> int:
    """``FLAME_LOG`` may hold a filter of the cluster's own (``info,h2=warn``); its first word is the level."""
    level = logging.getLevelName(name.partition(",")[0].rpartition("=")[2].strip().upper().replace("TRACE", "DEBUG"))
    return level if isinstance(level, int) else logging.INFO


if __name__ == "__main__":
    sys.exit(main())
