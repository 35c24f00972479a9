"""Versions that come from version control, recorded while packing: a package has no history to read them from."""

from __future__ import annotations

import re
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def recorded(projects: dict[str, Path]) -> dict[str, str]:
    """The version of each project, as it is installed here, else as setuptools-scm would make it of the last tag."""
    found = {name: _installed(name) or _from_git(directory) for name, directory in projects.items()}
    return {name: its_version for name, its_version in found.items() if its_version}


def module_text(its_version: str) -> str:
    """As setuptools-scm writes it."""
    parts = [int(part) if part.isdigit() else part for part in re.split(r"[.+]", its_version)]
    return f"__version__ = version = {its_version!r}\n__version_tuple__ = version_tuple = {tuple(parts)!r}\n"


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _from_git(directory: Path) -> str:
    """The tag itself when the checkout is clean and at it; else the next one's development version, with commit and day."""
    described = _git(directory, "describe", "--tags", "--long", "--dirty", "--match", "*[0-9]*")
    match = re.fullmatch(
        r"(?:.*?-)?v?(?P<base>\d+(?:\.\d+)*(?:(?:a|b|rc)\d+)?)-(?P<distance>\d+)-(?P<node>g[0-9a-f]+)(?P<dirty>-dirty)?", described
    )
    if match is None:
        node = _git(directory, "rev-parse", "--short", "HEAD")
        distance = _git(directory, "rev-list", "--count", "HEAD")
        return f"0.1.dev{distance}+g{node}" if node else ""
    if match["distance"] == "0" and not match["dirty"]:
        return match["base"]
    base = re.sub(r"\d+$", lambda number: str(int(number[0]) + 1), match["base"])
    day = f".d{time.strftime('%Y%m%d', time.gmtime())}" if match["dirty"] else ""
    local = f"+{match['node']}{day}" if match["distance"] != "0" else f"+{day.lstrip('.')}"
    return f"{base}.dev{match['distance']}{local}"


def _git(directory: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(directory), *arguments], capture_output=True, text=True, check=False, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
