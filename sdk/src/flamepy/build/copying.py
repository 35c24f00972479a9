"""The project's own files, as they go into the archive."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from flamepy._package.selection import Decision
from flamepy.build.errors import BuildError, Problem

__all__ = ["copy_files"]


def copy_files(root: Path, names: Iterable[str], target: Path) -> None:
    """Copy them; a link inside the project stays a link.

    Raises:
        BuildError: a link leads to what is not of the project, or is left out of the archive: its content would be shipped.
    """
    files = sorted(names)
    included = set(files)
    problems = [problem for name in files if (problem := _leads_out(root, name, included)) is not None]
    if problems:
        raise BuildError(problems, hint="copy the file into the project, or leave the link out with --exclude or .flameignore")
    for name in files:
        source, copy = root / name, target / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        if source.is_symlink() and not os.path.isabs(os.readlink(source)):
            copy.symlink_to(os.readlink(source))
        elif source.is_file():
            shutil.copy(source, copy)


def _leads_out(root: Path, name: str, included: set[str]) -> Problem | None:
    source = root / name
    place = source.resolve()
    if place == root.resolve() / name:
        return None
    if not place.is_relative_to(root.resolve()):
        return Problem(name, 0, f"is a link out of the project, to {place}, and is not followed")
    inside = place.relative_to(root.resolve()).as_posix()
    if place.is_file() and inside not in included:
        return Problem(name, 0, f"is a link to {inside}, which is left out of the archive")
    return None


def secrets_of(decisions: Iterable[Decision]) -> list[str]:
    return [decision.path for decision in decisions if decision.secret]
