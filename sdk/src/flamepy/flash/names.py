"""``import runpod_flash`` and ``import tetra_rp``: modules of those names, and of any inside them, that hold what `flamepy.flash` has."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

__all__ = ["IMPORT_NAMES", "MODULES", "install", "serve"]

IMPORT_NAMES = ("runpod_flash", "tetra_rp")
MODULES = Path(__file__).with_name("modules")
"""Directory to put on a path, for a process that imports nothing of ours first."""


class _Finder(MetaPathFinder, Loader):
    def find_spec(self, fullname: str, path: Sequence[str] | None = None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname.partition(".")[0] not in IMPORT_NAMES:
            return None
        return ModuleSpec(fullname, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return None

    def exec_module(self, module: ModuleType) -> None:
        serve(module.__name__)


_FINDER = _Finder()


def install(*, first: bool = False) -> None:
    """Make the names importable.

    Args:
        first: also where the SDK of that name is installed.
    """
    if _FINDER in sys.meta_path:
        sys.meta_path.remove(_FINDER)
    sys.meta_path.insert(0, _FINDER) if first else sys.meta_path.append(_FINDER)


def serve(name: str) -> None:
    """Fill the module of that name."""
    install(first=True)  # what is inside the module must not come from an installed SDK when the module itself does not
    module: Any = sys.modules[name]
    flash = importlib.import_module("flamepy.flash")

    def missing(attribute: str) -> Any:
        if attribute.startswith("__"):
            raise AttributeError(attribute)
        if hasattr(flash, attribute):
            return getattr(flash, attribute)
        raise AttributeError(f"module {name!r} has no {attribute!r} here: flamepy has the public names of that SDK only")

    module.__all__ = list(flash.__all__)
    module.__getattr__ = missing
