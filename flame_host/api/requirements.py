"""For installers: requirements handed to a tool by a file, since every user of the machine can read command lines."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from flame_host.api.errors import InstallError


@contextlib.contextmanager
def requirements_file(beside: Path, requirements: Iterable[str]) -> Iterator[Path]:
    """A file that only this user can read, for ``-r``; gone afterwards. A URL with a token in it shows in no list of processes.

    Args:
        beside: of the file; its directory is the caller's alone.

    Raises:
        InstallError: one of them would be an option or a further line there: a requirement is data.
    """
    lines = list(requirements)
    for line in lines:
        if line.lstrip()[:1] in ("-", "#", "") or not line.isprintable():
            raise InstallError(f"{line!r:.200} is no requirement", hint="write it as in pyproject.toml [project] dependencies")
    path = beside.with_name(f".{beside.name}.requirements")
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as stream:
            stream.write("".join(f"{line}\n" for line in lines))
        yield path
    finally:
        path.unlink(missing_ok=True)
