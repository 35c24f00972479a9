"""Large files of the working directory are links to contents that others read, too; one that is opened for writing becomes a copy.

Standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WRITING = os.O_WRONLY | os.O_RDWR | os.O_APPEND | os.O_TRUNC
_CHANGES = frozenset({"os.truncate", "os.chmod", "os.utime", "sqlite3.connect"})
_BLOCK = 1 << 20


def copy_on_write(contents: str) -> None:
    """From here on, for links into the directory ``contents``. It sees what Python itself opens; everybody else finds a read-only file."""
    contents += os.sep

    def before(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, mode, flags = arguments
            if not ((isinstance(flags, int) and flags & _WRITING) or (isinstance(mode, str) and set(mode) & set("wa+x"))):
                return
        elif event in _CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, int):
            _own_copy(path, contents)

    sys.addaudithook(before)


def _own_copy(path: Any, contents: str) -> None:
    try:
        path = os.fsdecode(path)
        if not os.path.islink(path) or not os.readlink(path).startswith(contents):
            return
        part = path + ".flame-copy"
        with open(path, "rb") as source, open(part, "wb") as target:
            while True:
                block = source.read(_BLOCK)
                if not block:
                    break
                target.write(block)
        os.replace(part, path)
    except (OSError, TypeError, ValueError):
        return  # what the task wanted to do will say what is wrong
