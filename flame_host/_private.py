"""Directories that are ours alone: what stands in them is run."""

from __future__ import annotations

import contextlib
import os
import stat
from pathlib import Path

from flame_host.api import ConfigError

_ELSEWHERE = "set FLAME_HOST_ROOT to a directory of your own"


def private_root(root: Path) -> Path:
    """Make the host's root and what is missing above it, whatever the umask, or make sure that it is ours alone.

    Raises:
        ConfigError: it, something directly in it, or a directory above it can be changed by somebody else; or it is a link.
    """
    try:
        make_private(root)
        _check_above(root.parent)
        _check(root, "the host's directory")
        for name in os.listdir(root):
            with contextlib.suppress(FileNotFoundError):  # another process has just removed it
                _check(root / name, "a part of the host's directory")
    except OSError as error:
        raise ConfigError(f"cannot use {root} as the host's directory: {error.strerror}", hint=_ELSEWHERE) from error
    return root


def make_private(directory: Path) -> Path:
    """Make it and what is missing above it with mode 0700; what is there stays as it is."""
    missing = []
    while not os.path.lexists(directory):
        missing.append(directory)
        directory = directory.parent
    for path in reversed(missing):
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
    return missing[0] if missing else directory


def is_ours_alone(path: Path) -> str:
    """Why not; empty when it is. A missing one is FileNotFoundError."""
    status = os.lstat(path)
    if stat.S_ISLNK(status.st_mode):
        return "is a link"
    if status.st_uid != os.geteuid():
        return f"belongs to another user (uid {status.st_uid})"
    if status.st_mode & 0o022:
        return f"can be written by others (mode {stat.S_IMODE(status.st_mode):04o})"
    return ""


def _check(path: Path, what: str) -> None:
    problem = is_ours_alone(path)
    if problem:
        hint = f"look whether it was changed, then: chmod -R go-w {path}" if "written" in problem else _ELSEWHERE
        raise ConfigError(f"{path}, {what}, {problem}; what stands there is run, so it is not used", hint=hint)


def _check_above(directory: Path) -> None:
    """Who can rename a directory above the root can put another one there. The sticky bit forbids that, as in /tmp."""
    path = directory.resolve()
    for above in (path, *path.parents):
        status = above.stat()
        if status.st_uid not in (0, os.geteuid()):
            raise ConfigError(f"{above}, above the host's directory, belongs to another user (uid {status.st_uid})", hint=_ELSEWHERE)
        foreign = 0o022 if status.st_gid not in (0, os.getegid()) else 0o002
        if status.st_mode & foreign and not status.st_mode & stat.S_ISVTX:
            raise ConfigError(f"{above}, above the host's directory, can be written by others", hint=f"chmod go-w {above}, or {_ELSEWHERE}")
