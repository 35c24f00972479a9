"""From ``@remote`` functions to a deployable archive: scan ▸ manifest ▸ handlers ▸ dependencies ▸ archive.

::

    from flamepy.build import build_project

    report = build_project("path/to/project")
    print(report.archive, report.digest)
"""

from __future__ import annotations

import importlib

_HOME = {
    "errors": "BuildError Problem",
    "handlers": "HandlerGenerator",
    "manifest": "ManifestBuilder",
    "project": "BuildReport CheckReport build_project check_project clean_project",
    "scanner": "RemoteDecoratorScanner RemoteFunctionMetadata",
}
_WHERE = {name: module for module, names in _HOME.items() for name in names.split()}
__all__ = sorted(_WHERE)


def __getattr__(name: str) -> object:
    if name not in _WHERE:
        raise AttributeError(f"module 'flamepy.build' has no attribute {name!r}")
    return getattr(importlib.import_module(f"flamepy.build.{_WHERE[name]}"), name)
