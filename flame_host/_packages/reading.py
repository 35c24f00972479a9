"""Reading a package's own files within bounds: who wrote them may mean us harm.

What is bounded is what parsing costs: bytes, parts of a dotted key (TOML readers take quadratic time and memory for those), nesting,
lines of a script's header, files of requirements. `lightly` bounds it further, to what is read at once whoever wrote it; a package
with more to read is read by a process that can be killed (`flame_host._packages.survey`).
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import sys
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from flame_host.api import ConfigError

MOST_BYTES = 1 << 20
"""Of one file that is parsed. The largest in use, of generated requirements, have a tenth of that."""
MOST_DOTS = 2_000_000
"""Sum over the lines of TOML of the square of their dots, which is what reading dotted keys costs. A line with 300 versions has 360 000."""
MOST_NESTING = 100
MOST_FILES = 50
"""Of requirements, each naming the next."""
LIGHT_BYTES = 128 << 10
"""Of all files together: most projects have a tenth of it, and it is parsed in a tenth of a second."""

_left: ContextVar[int | None] = ContextVar("left", default=None)
_top: ContextVar[Path | None] = ContextVar("top", default=None)

_OPTION = re.compile(r"(?:(?P<name>-[rce])[\s=]*|(?P<long>--(?:requirement|constraint|editable))(?:=|\s)\s*)(?P<path>\S+)")


class Heavy(Exception):
    """Something may take its time; what it is does not matter."""


@contextlib.contextmanager
def lightly() -> Iterator[None]:
    """Within, reading stops with `Heavy` before it does anything that may take long."""
    token = _left.set(LIGHT_BYTES)
    try:
        yield
    finally:
        _left.reset(token)


@contextlib.contextmanager
def only_below(top: Path) -> Iterator[None]:
    """Within, what a package's own files name is read below its top, see `is_below`."""
    token = _top.set(top.resolve())
    try:
        yield
    finally:
        _top.reset(token)


def is_below(path: Path) -> bool:
    """Whether a file may be read that a package names; any, where it is the user's own project that is read."""
    top = _top.get()
    return top is None or path.resolve().is_relative_to(top)


def takes_long() -> None:
    """What follows is a stranger's to say how long it takes."""
    if _left.get() is not None:
        raise Heavy


def _count(size: int) -> None:
    left = _left.get()
    if left is not None:
        if size > left:
            raise Heavy
        _left.set(left - size)


def text_of(path: Path, most: int = MOST_BYTES, errors: str = "strict") -> str:
    """All of a file.

    Raises:
        ConfigError: it is larger, no file, or not UTF-8.
    """
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        raise ConfigError(f"{path.name} is no file")
    if status.st_size > most:
        raise ConfigError(f"{path.name} has {status.st_size} bytes; {most} are read", hint="is it what its name says?")
    _count(status.st_size)
    try:
        return path.read_bytes().decode("utf-8-sig", errors)
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path.name}: not UTF-8 ({error.reason} at byte {error.start})") from error


def head_of(path: Path, most: int = MOST_BYTES) -> str:
    """The beginning of a file, which may be longer and any bytes at all."""
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        return ""
    _count(min(status.st_size, most))
    with path.open("rb") as stream:
        return stream.read(most).decode("utf-8", "replace")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file as a table; a broken one is `ConfigError` with the file's name and the line."""
    return parse_toml(text_of(path), path.name)


def parse_toml(text: str, name: str) -> dict[str, Any]:
    """A TOML document as a table; `ConfigError` names the file and, where it can, the line."""
    if len(text) > MOST_BYTES:
        raise ConfigError(f"{name} has {len(text)} characters; {MOST_BYTES} are read")
    cost = 0
    for number, line in enumerate(text.split("\n"), 1):
        cost += line.count(".") ** 2
        if cost > MOST_DOTS:
            raise ConfigError(f"{name}, line {number}: too many dots to be read", hint="break long lines, if they are lists")
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        table = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{name} is nested too deep") from None
    except ValueError as error:  # TOMLDecodeError, or a number that Python does not take
        raise ConfigError(f"{name}: {error!s:.500}", hint="mend the line it names") from error
    _check_depth(table, name)
    return table


def _check_depth(table: object, name: str) -> None:
    """Whoever walks a table may recurse."""
    level = [table]
    for _ in range(MOST_NESTING):
        level = [inner for value in level for inner in _inside(value)]
        if not level:
            return
    raise ConfigError(f"{name} is nested deeper than {MOST_NESTING} levels")


def _inside(value: object) -> list[object]:
    if isinstance(value, dict):
        return [inner for inner in value.values() if isinstance(inner, (dict, list))]
    return [inner for inner in value if isinstance(inner, (dict, list))] if isinstance(value, list) else []


def script_block(text: str, name: str) -> str | None:
    """The TOML of a script's header (PEP 723), without its comment marks; None when there is no such block.

    Raises:
        ConfigError: it does not end.
    """
    found: list[str] | None = None
    end: int | None = None
    for line in text.splitlines():
        line = line.rstrip()
        if found is None:
            if line == "# /// script":
                found = []
        elif line == "# ///":
            end = len(found)
            found.append("///")
        elif line == "#" or line.startswith("# "):
            found.append(line[2:])
        else:
            break
    if found is None:
        return None
    if end is None:
        raise ConfigError(f"{name}: its '# /// script' block does not end", hint="close it with a line '# ///'")
    return "\n".join(found[:end]) + "\n"


def check_requirements(root: Path, files: list[Path], directory: Path) -> None:
    """That every file that files of requirements draw in is below the root.

    Args:
        directory: where the paths of ``-e`` start; those of ``-r`` and ``-c`` start at their file.

    Raises:
        ConfigError: one leads outside, where there is nothing of the package; there are too many; or one is no text.
    """
    inside = root.resolve()
    waiting = [(path, "the project", False) for path in files]
    found: set[Path] = set()
    while waiting:
        path, origin, to_install = waiting.pop(0)
        real = _resolved(path, origin)
        if not real.is_relative_to(inside):
            raise ConfigError(f"{origin} names {path}, which lies outside of the package", hint="put it into the project")
        if to_install or real in found:
            continue
        if len(found) >= MOST_FILES:
            raise ConfigError(f"more than {MOST_FILES} files of requirements name each other")
        if not real.is_file():
            raise ConfigError(f"{origin} names {path.name}, which is not in the package")
        found.add(real)
        for value, editable in _drawn_in(text_of(real, errors="replace")):
            waiting.append(((directory if editable else real.parent) / value, real.name, editable))


def _resolved(path: Path, origin: str) -> Path:
    try:
        real = path.resolve()
        os.stat(real)
    except FileNotFoundError:
        pass  # for the caller to tell
    except (OSError, ValueError, RuntimeError) as error:  # too long, a NUL in it, links in a circle
        raise ConfigError(f"{origin} names {str(path)!r:.200}, which is no path: {error!s:.200}") from error
    return real


def _drawn_in(text: str) -> list[tuple[str, bool]]:
    """Paths that the options of a requirements file name, and whether to be installed; what has a scheme is the installer's business."""
    lines = (re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip() for line in text.replace("\\\n", "").splitlines())
    options = (_OPTION.match(line) for line in lines)
    found = []
    for option in options:
        if option is not None and "://" not in option["path"]:
            editable = (option["name"] or option["long"]) in ("-e", "--editable")
            path = option["path"].strip("\"'")
            found.append((without_extras(path.partition("#")[0]) if editable else path, editable))
    return found


def without_extras(target: str) -> str:
    """``./directory[extra]`` is ``./directory``."""
    if not target.endswith("]"):
        return target
    start = target.find("[", target.rfind("]", 0, -1) + 1)
    return target[:start] if start >= 0 else target
