"""The contract, as much of it as an archiver needs to read, light enough for the child that unpacks.

Importing `flame_host.api` takes as long as unpacking thousands of files: dataclasses, typing, pathlib, pluggy. The child puts this
module in its place. Names and shapes are those of the contract (a test compares them); what is not here, a plugin that asks for it
gets from the real modules.
"""

from __future__ import annotations

import enum
import sys
from collections import namedtuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ArchiveError", "ArchiveLimitError", "FlameError", "Limits", "Member", "MemberKind", "PackageError", "UnsafeArchiveError"]

OTHERS = ("errors", "packages", "buffers", "formats", "sessions", "execution", "hookspecs", "negotiation")


class FlameError(Exception):
    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class PackageError(FlameError):
    pass


class ArchiveError(PackageError):
    pass


class UnsafeArchiveError(ArchiveError):
    def __init__(self, rule: str, member: str, message: str) -> None:
        super().__init__(f"{message}: {member!r} (rule {rule})" if member else f"{message} (rule {rule})")
        self.rule = rule
        self.member = member


class ArchiveLimitError(ArchiveError):
    def __init__(self, budget: str, message: str) -> None:
        super().__init__(f"{message} (budget {budget})", hint="if you trust this package, raise the budget in the host's settings")
        self.budget = budget


class MemberKind(enum.IntEnum):
    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    HARDLINK = 3
    OTHER = 4


Member = namedtuple("Member", "name kind size executable link content", defaults=(MemberKind.FILE, 0, False, "", b""))


class Limits:
    def __init__(self, **limits: Any) -> None:
        self.__dict__.update(limits)


def install(package: str) -> None:
    """Stand in for `flame_host.api`; ``package`` is the directory of ``flame_host``."""
    host, api = type(sys)("flame_host"), type(sys)("flame_host.api")
    host.__path__, api.__path__ = [package], [f"{package}/api"]
    api.__dict__.update({name: globals()[name] for name in __all__}, __getattr__=_from_contract)
    host.__dict__["api"] = api
    sys.modules.update({"flame_host": host, "flame_host.api": api})


def _from_contract(name: str) -> Any:
    for module in OTHERS:
        __import__(f"flame_host.api.{module}")
        found = getattr(sys.modules[f"flame_host.api.{module}"], name, None)
        if found is not None:
            return found
    raise AttributeError(f"module 'flame_host.api' has no attribute {name!r}")
