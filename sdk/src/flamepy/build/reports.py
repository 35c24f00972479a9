"""What a build, or a look at what it would be, tells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["BuildReport", "CheckReport"]


@dataclass(frozen=True)
class CheckReport:
    """What a build would be of.

    Attributes:
        dependencies: requirements that would be installed. download: their bytes, None if that cannot be told.
        notes: what the user should know, although it is no error.
    """

    manifest: Mapping[str, Any]
    dependencies: tuple[str, ...]
    download: int | None
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return asdict(self)


@dataclass(frozen=True)
class BuildReport:
    """What was built.

    Attributes:
        digest: SHA-256 of the archive. size: its bytes. files: how many are in it.
        handlers: their files, by resource. dependencies: requirements that were installed.
        sizes: bytes before compression, by top-level name.
        notes: what the user should know, although it is no error.
    """

    archive: Path
    digest: str
    size: int
    files: int
    manifest: Mapping[str, Any]
    handlers: tuple[str, ...]
    dependencies: tuple[str, ...]
    sizes: Mapping[str, int]
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain data, for ``--json``."""
        return {**asdict(self), "archive": str(self.archive), "handlers": list(self.handlers), "dependencies": list(self.dependencies)}
