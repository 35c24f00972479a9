"""Remembers which files of a project go into its package, so that an unchanged project need not be sifted again.

Scanning compiles dozens of patterns, which takes longer than everything else a warm start does. A directory's time stamp changes when
an entry comes, goes or is renamed; so the listing holds while the directories and the ignore files are as they were.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

_SETTLED = 2_000_000_000  # nanoseconds; a directory this young could change again without its time stamp telling
_IGNORE_FILES = (".gitignore", ".flameignore")


class Listing:
    """One project's listing, kept in a directory of the host.

    Args:
        rules: whatever else decides, besides the files of the project.
    """

    def __init__(self, cellar: Path, root: Path, rules: Sequence[str]) -> None:
        key = hashlib.sha256(json.dumps([1, str(root), *rules]).encode()).hexdigest()[:32]
        self._path = cellar / f"listing-{key}.json"
        self._root = root

    def read(self) -> tuple[list[str], list[str]] | None:
        """The files and the secrets left out, if the project's directories are as they were."""
        try:
            kept = json.loads(self._path.read_text())
            if kept["stamps"] == self._stamps([directory for directory, *_ in kept["stamps"]]):
                return kept["files"], kept["secrets"]
        except (OSError, ValueError, KeyError):
            pass
        return None

    def write(self, directories: Sequence[str], files: Sequence[str], secrets: Sequence[str]) -> None:
        """Keep it, unless a directory changed so lately that it might change again unnoticed."""
        with contextlib.suppress(OSError):
            stamps = self._stamps(directories)
            if max(int(stamp[1]) for stamp in stamps) > time.time_ns() - _SETTLED:
                return
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            part = self._path.with_suffix(f".{os.getpid()}.part")
            part.write_text(json.dumps({"stamps": stamps, "files": list(files), "secrets": list(secrets)}))
            part.replace(self._path)

    def _stamps(self, directories: Sequence[str]) -> list[list[str | int]]:
        stamps: list[list[str | int]] = []
        for directory in directories:
            path = os.path.join(self._root, directory)
            stamp: list[str | int] = [directory, os.stat(path).st_mtime_ns]
            for name in _IGNORE_FILES:
                with contextlib.suppress(FileNotFoundError):
                    status = os.stat(os.path.join(path, name))
                    stamp += [name, status.st_size, status.st_mtime_ns]
            stamps.append(stamp)
        return stamps
