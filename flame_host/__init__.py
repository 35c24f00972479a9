"""An executor host for Python whose every format is a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from flame_host._version import __version__

if TYPE_CHECKING:
    from flame_host._host import Host

__all__ = ["Host", "__version__"]


def __getattr__(name: str) -> object:
    """`Host` on first use: importing the contract must not load the host."""
    if name == "Host":
        from flame_host._host import Host

        return Host
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
