"""Where a worker's file stands in the user's own project.

A worker runs an unpacked copy of the package, in a directory named by the package's digest. Whoever reads a traceback or a warning
wants the file that can be opened and changed.
"""

from __future__ import annotations

import re
from pathlib import Path

_projects: dict[str, str] = {}
_COPY = re.compile(r"(?:/[^\s/\"']+)*/([0-9a-f]{64})/")


def remember(digest: str, project: Path) -> None:
    """This project was packed under that digest."""
    _projects[digest] = f"{project.resolve()}/"


def shown(text: str) -> str:
    """The text with paths of copies replaced by those of the project they were made of."""
    return _COPY.sub(lambda match: _projects.get(match[1], match[0]), text) if _projects else text
