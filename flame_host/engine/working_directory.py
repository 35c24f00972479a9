"""The current directory of an application's workers."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

from flame_host.api import Application


def working_directory(root: Path, application: Application, tree: Path | None) -> Path:
    """The application's current directory: files of the package can be read there by relative names."""
    directory = Path(application.working_directory or root / "work" / application.name)
    directory.mkdir(parents=True, exist_ok=True)
    for entry in tree.iterdir() if tree is not None else ():
        link = directory / entry.name
        if link.is_symlink() and os.readlink(link) != str(entry):
            with contextlib.suppress(FileNotFoundError):
                link.unlink()
        if not link.exists():
            with contextlib.suppress(FileExistsError):
                link.symlink_to(entry)
    return directory
