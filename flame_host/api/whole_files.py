"""Files that have a name once they are whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A new file that gets its name when the block ends, and none when it fails.

    Until then it has no name, so that nothing of it is left whatever ends this process. Where the file system has no such files it has
    its name from the beginning; let that tell what it is.

    Raises:
        FileExistsError: there is one of that name.
    """
    descriptor = _without_name(path.parent)
    if descriptor is None:
        with path.open("x+b") as stream:
            try:
                yield stream
            except BaseException:
                path.unlink(missing_ok=True)
                raise
        return
    with os.fdopen(descriptor, "w+b") as stream:
        yield stream
        stream.flush()
        # With a directory descriptor given, which an absolute path does not use, Python has the kernel follow the link to the file.
        os.link(f"/proc/self/fd/{descriptor}", path, src_dir_fd=descriptor, follow_symlinks=True)


def _without_name(directory: Path) -> int | None:
    if not os.path.exists("/proc/self/fd"):
        return None
    try:
        return os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o666)
    except (OSError, AttributeError):  # of the file system, or of the system altogether
        return None
