"""What the host's own environment lends to a worker that talks to the cluster itself: gRPC and Arrow, whose halves are compiled.

They are no part of what every worker can import: an application that looks whether they are there (pandas does) would work otherwise
on a node than elsewhere. A worker of the host's own Python gets them when it opens a cache or a Runner of the cluster, at the end of
its path.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import sysconfig

_VARIABLE = "FLAME_HOST_SITE"


def lend() -> None:
    """In the host: tell the workers that it starts from here on."""
    os.environ[_VARIABLE] = f"{_version()}:{sysconfig.get_path('platlib')}"


def borrow(module: str) -> None:
    """Make a module importable, if it is not and the host of this worker has it."""
    version, _, site = os.environ.get(_VARIABLE, "").partition(":")
    if not site or version != _version() or site in sys.path or importlib.util.find_spec(module) is not None:
        return
    sys.path.append(site)
    importlib.invalidate_caches()


def _version() -> str:
    return f"{sys.version_info.major}.{sys.version_info.minor}"
