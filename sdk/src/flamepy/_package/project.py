"""Which project a program belongs to: found from where its code is, as uv and pytest do.

From the directory of the module that makes the Runner - or of the script, for a caller that is installed; or the current directory,
in a REPL or notebook - upwards to the first directory with a project file. Without any it is the directory itself.
"""

from __future__ import annotations

import logging
import os
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from flame_host.api import ConfigError

MARKERS = ("pyproject.toml", "setup.py", "setup.cfg", "requirements.txt", "uv.lock", "pylock.toml")

logger = logging.getLogger("flamepy.package")


@dataclass(frozen=True)
class Located:
    """Attributes:
    root: absolute. script: the program that runs, when it is a file. why: how the root was found.
    """

    root: Path
    script: Path | None
    why: str


def caller_file(frame: FrameType | None) -> Path | None:
    """The file of the first frame that is not ours; None when it is no file, or an installed one."""
    while frame is not None and str(frame.f_globals.get("__name__", "")).partition(".")[0] in ("flamepy", "flame_host"):
        frame = frame.f_back
    return _own_file(frame.f_globals.get("__file__")) if frame is not None else None


def main_file() -> Path | None:
    return _own_file(getattr(sys.modules.get("__main__"), "__file__", None))


def is_interactive() -> bool:
    """A REPL or a notebook: cells are run again, so what they open is opened again."""
    return hasattr(sys, "ps1") or bool(sys.flags.interactive)


def locate(given: str | Path | None, caller: Path | None) -> Located:
    """The project, and a line about it where one may wonder.

    Args:
        given: takes the place of looking, as ``FLAME_PROJECT`` does.
    """
    script = main_file()
    named = given if given is not None else os.environ.get("FLAME_PROJECT")
    if named:
        root = checked_root(named)
        return Located(root, script, "Runner(project=…)" if given is not None else "FLAME_PROJECT")
    own = os.environ.get("FLAME_APP_DIR")
    if own and os.path.isdir(own):
        return Located(Path(own).resolve(), script, "the package of the task")
    here = Path.cwd()
    code = caller or script
    start = code.parent if code is not None else here
    candidates = [directory for directory in _upwards(start) if any((directory / name).is_file() for name in MARKERS)]
    if not candidates:
        if start != here:
            logger.warning("no project file in %s or above: that directory alone is the project of %s", start, code)
        return Located(checked_root(start), script, "the directory of the code")
    root = checked_root(candidates[0])
    others = [path for path in candidates[1:] if (path / "pyproject.toml").is_file() and not _is_workspace(path)]
    if others and not _is_workspace(root):
        logger.info("the project is %s, the nearest of %s", root, ", ".join(map(str, [root, *others])))
    if not here.is_relative_to(root) and not root.is_relative_to(here) and any((here / name).is_file() for name in MARKERS):
        logger.warning("the project is %s, where the code is (%s); %s, the current directory, is another one", root, code, here)
    return Located(root, script, f"the first project file above {start}")


def checked_root(root: str | Path) -> Path:
    """The project's directory, made absolute; one that cannot be meant is refused."""
    path = Path(root).expanduser().resolve()
    if not path.is_dir():
        raise ConfigError(f"the project directory {path} does not exist")
    if path == Path(path.anchor) or path == Path.home().resolve():
        raise ConfigError(
            f"{path} is not a project: all of it would be packed",
            hint="change into the project's directory, give Runner(project=PATH), or Runner(package=False) to send no files",
        )
    return path


def _own_file(name: object) -> Path | None:
    if not isinstance(name, str) or not os.path.isfile(name):
        return None
    path = Path(name).resolve()
    paths = sysconfig.get_paths()
    installed = any(path.is_relative_to(Path(paths[kind]).resolve()) for kind in ("purelib", "platlib", "stdlib", "scripts"))
    return None if installed or "site-packages" in path.parts else path


def _upwards(start: Path) -> list[Path]:
    """Up to the home directory or the top, neither of which is a project."""
    found = []
    for directory in (start, *start.parents):
        if directory == Path.home() or directory == Path(directory.anchor):
            break
        found.append(directory)
    return found


def _is_workspace(directory: Path) -> bool:
    try:
        return "[tool.uv.workspace]" in (directory / "pyproject.toml").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
