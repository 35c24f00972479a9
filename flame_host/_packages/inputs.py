"""What decides what gets installed, by its content: files that requirements include, local archives and directories, indexes on disk."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

from flame_host._packages.neighbours import path_of_url, split_requirement
from flame_host._packages.reading import text_of, without_extras

_INCLUDE = r"(?:-r|-c|--requirement|--constraint)(?:\s+|=)?(?P<path>\S.*)"
_EDITABLE = r"(?:-e|--editable)(?:\s+|=)(?P<path>\S.*)"
_LINKS = r"(?:-f|--find-links)(?:\s+|=)(?P<path>\S.*)"
_ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tgz")
_SKIPPED = {"__pycache__", ".git", ".hg", ".svn", ".venv", "node_modules", ".mypy_cache", ".ruff_cache", ".pytest_cache", "build", ".flame"}


def requirement_inputs(files: Iterable[Path], directory: Path, *, files_only: bool = False) -> list[Path]:
    """Everything on disk that requirements files name, themselves included; each once.

    Args:
        directory: where relative paths of packages start, as for pip and uv; those of ``-r`` and ``-c`` start at their file.
        files_only: just the requirements files themselves.
    """
    found: dict[Path, None] = {}
    waiting = list(files)
    while waiting:
        file = Path(os.path.normpath(waiting.pop(0)))
        if file in found or not file.is_file():
            continue
        found[file] = None
        for line in _lines(file):
            include = re.fullmatch(_INCLUDE, line)
            if include:
                if "://" not in include["path"]:
                    waiting.append(file.parent / _unquoted(include["path"]))
                continue
            if not files_only:
                found.update(dict.fromkeys(path for path in named_paths(line, directory) if path.exists()))
    return list(found)


def named_paths(line: str, directory: Path) -> Iterator[Path]:
    """The paths one requirement names."""
    option = re.fullmatch(_EDITABLE, line) or re.fullmatch(_LINKS, line)
    if option:
        target = without_extras(_unquoted(option["path"]).partition("#")[0])
        path = path_of_url(target, directory)
        if path is not None:
            yield path
        return
    if line.startswith("-"):
        return
    name, _, target = split_requirement(line)
    if not target:
        bare = line.partition(" ")[0].partition(";")[0].partition("#")[0]
        plain = without_extras(bare)
        if "/" in plain or plain.endswith(_ARCHIVES) or plain in (".", ".."):
            target = plain
    path = path_of_url(target.partition(" ")[0], directory) if target else None
    if path is not None:
        yield path


def _lines(file: Path) -> Iterator[str]:
    text = text_of(file, errors="replace").replace("\\\n", " ")
    for line in text.splitlines():
        line = re.sub(r"(^|\s)#.*$", "", line).strip()
        if line:
            yield line


def _unquoted(text: str) -> str:
    return text.strip().strip("\"'")


def content_digest(paths: Iterable[Path], base: Path) -> str:
    """Of the contents; names count relative to ``base``, so that the same project elsewhere is the same."""
    digest = hashlib.sha256()
    for path in sorted(set(paths)):
        digest.update(f"{os.path.relpath(path, base)}\0".encode("utf-8", "surrogateescape"))
        if path.is_dir():
            _add_directory(digest, path)
        elif path.is_file():
            digest.update(path.read_bytes())
        else:
            digest.update(b"absent")
    return digest.hexdigest()


def _add_directory(digest: hashlib._Hash, directory: Path) -> None:
    for place, directories, files in os.walk(directory):
        directories[:] = sorted(name for name in directories if name not in _SKIPPED and not name.endswith(".egg-info"))
        for name in sorted(files):
            path = os.path.join(place, name)
            digest.update(f"{os.path.relpath(path, directory)}\0".encode("utf-8", "surrogateescape"))
            if os.path.islink(path):
                digest.update(os.readlink(path).encode("utf-8", "surrogateescape"))
            elif os.path.isfile(path):
                with open(path, "rb") as stream:
                    while block := stream.read(1 << 20):
                        digest.update(block)


_DISTRIBUTIONS = (".whl", ".tar.gz", ".zip", ".tar.bz2", ".tar.xz", ".tgz", ".html")
"""What an installer may take from a directory of wheels."""


def listing_digest(directories: Iterable[str]) -> str:
    """Of what stands in directories of wheels, by names, sizes and times: reading them all would take long."""
    digest = hashlib.sha256()
    for directory in directories:
        digest.update(f"{directory}\0".encode("utf-8", "surrogateescape"))
        try:
            found = [entry for entry in os.scandir(directory) if entry.name.endswith(_DISTRIBUTIONS)]  # whatever else may stand there
            entries = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in found)
        except OSError:
            continue
        digest.update(repr(entries).encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
