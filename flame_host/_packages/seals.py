"""Whether a finished directory is still as it was made.

Files and directories are made read-only, and what each was is written down: size, times, number. A change leaves a trace in the time
of its status, which nobody but the kernel sets. Looking costs a few microseconds a file; contents are not read again.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from pathlib import Path

from flame_host._private import make_private

PLACE = ".flame"
"""Directory in a tree that holds metadata of ours; it goes on the path."""


def seal(directory: Path, note: Path) -> None:
    """Make everything below read-only and note what is there."""
    for place, directories, files in os.walk(directory):
        for name in (*files, *directories):
            path = os.path.join(place, name)
            if not os.path.islink(path):
                os.chmod(path, stat.S_IMODE(os.stat(path).st_mode) & ~0o222)
    make_private(note.parent)
    note.write_text(json.dumps(look(directory)))


def close(directory: Path) -> None:
    """The last step: nothing can be added at the top either."""
    os.chmod(directory, 0o500)


def broken(directory: Path, note: Path) -> str:
    """The first file that is not as it was, relative; empty when all are. What has come on top is removed.

    A directory without a seal was made before there were any, and counts as changed.
    """
    try:
        expected = json.loads(note.read_bytes())
    except (OSError, ValueError):
        return "it was never sealed"
    found = look(directory)
    if found == expected:
        return ""
    for name in sorted(found.keys() - expected.keys(), reverse=True):  # what lies deeper comes first
        with contextlib.suppress(OSError):
            _remove(directory / name)
    for name, facts in expected.items():
        if found.get(name) != facts:
            return str(name)
    return ""


def differs(directory: Path, note: Path) -> bool:
    """Whether anything in it is not as the note says."""
    try:
        return bool(look(directory) != json.loads(note.read_bytes()))
    except (OSError, ValueError):
        return True


def make_writable(directory: Path) -> None:
    """So that it can be moved or removed."""
    with contextlib.suppress(OSError):
        os.chmod(directory, 0o700)


def remove_tree(path: Path) -> None:
    """Also what is read-only; what cannot be removed stays."""
    for place, directories, files in os.walk(path):
        with contextlib.suppress(OSError):
            os.chmod(place, 0o700)
        for name in files:
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(place, name))
        for name in directories:
            if os.path.islink(os.path.join(place, name)):
                with contextlib.suppress(OSError):
                    os.unlink(os.path.join(place, name))
    for place, _, _ in os.walk(path, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(place)


def _remove(path: Path) -> None:
    os.chmod(path.parent, 0o700)
    try:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()
    finally:
        os.chmod(path.parent, 0o500)


def look(directory: Path) -> dict[str, list[int | str]]:
    """Directories by name alone: their times change with what comes and goes, which shows by itself."""
    found: dict[str, list[int | str]] = {}
    stack = [""]
    while stack:
        place = stack.pop()
        with contextlib.suppress(FileNotFoundError), os.scandir(directory / place if place else directory) as entries:
            for entry in entries:
                name = f"{place}/{entry.name}" if place else entry.name
                if entry.is_dir(follow_symlinks=False):
                    found[name] = []
                    stack.append(name)
                else:
                    found[name] = _facts(entry)
    return found


def _facts(entry: os.DirEntry[str]) -> list[int | str]:
    """Of a link: where it leads, and of a link out of here (to a shared file) also what stands there."""
    status = entry.stat(follow_symlinks=False)
    facts: list[int | str] = [status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino]
    if stat.S_ISLNK(status.st_mode):
        target = os.readlink(entry.path)
        facts.append(target)
        if os.path.isabs(target):
            with contextlib.suppress(OSError):
                there = os.stat(target)
                facts += [there.st_size, there.st_mtime_ns, there.st_ctime_ns]
    return facts
