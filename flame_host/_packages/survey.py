"""What a tree needs, as its marker keeps it; read at once when little has to be read, else by a process that can be killed.

Run as a script this module's neighbour ``survey_child.py`` is that process. Whatever is in a package costs at most `SECONDS` and `MEMORY`.
"""

from __future__ import annotations

import errno
import json
import marshal
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flame_host._packages.children import ask
from flame_host._packages.metadata import write_metadata
from flame_host._packages.project import read_about, read_project
from flame_host._packages.reading import Heavy, lightly, only_below
from flame_host.api import ConfigError, FlameError, ProvisionError

SECONDS = 20.0
MEMORY = 1 << 30
CHILD = Path(__file__).with_name("survey_child.py")
_ANSWER_BYTES = 32 << 20


def survey(tree: Path, seconds: float = SECONDS) -> dict[str, Any]:
    """The facts of an unpacked tree; distribution metadata of what runs from it is written into it.

    Raises:
        ConfigError: a file of the package cannot be read, or not within the time.
    """
    try:
        with lightly():
            return read_tree(tree)
    except Heavy:
        return _by_a_child(tree, seconds)


def read_tree(tree: Path) -> dict[str, Any]:
    try:
        with only_below(tree):
            project, reading = read_project(tree)
            return {**project.to_facts(), "metadata": write_metadata(tree, reading.here, read_about(tree).versions)}
    except OSError as error:
        if error.errno not in (errno.ENAMETOOLONG, errno.ELOOP):
            raise
        raise ConfigError(f"the project names a path that is none: {error.strerror}: {error.filename!s:.200}") from error


def _by_a_child(tree: Path, seconds: float) -> dict[str, Any]:
    order = {"path": [entry or os.getcwd() for entry in sys.path], "tree": os.fspath(tree), "seconds": seconds, "memory": MEMORY}
    try:
        answer, complaint = ask(CHILD, marshal.dumps(order), seconds, _ANSWER_BYTES)
    except TimeoutError:
        raise ConfigError(
            f"reading the project's files took longer than {seconds:g} s and was stopped",
            hint="look for a pattern in [tool.hatch.version] or [tool.uv.workspace] that takes long, or for very large files",
        ) from None
    if not answer:
        raise ProvisionError(f"the process that reads the project's files ended without an answer: {complaint.strip()[-2000:]}")
    told: dict[str, Any] = json.loads(answer)
    if "facts" in told:
        found: dict[str, Any] = told["facts"]
        return found
    raise _failure(told)


def _failure(told: Mapping[str, str]) -> FlameError:
    if told["type"] == "ConfigError":
        return ConfigError(told["message"], hint=told["hint"])
    if told["type"] == "MemoryError":
        return ConfigError(f"reading the project's files needs more than the {MEMORY >> 20} MiB it may have")
    return ProvisionError(f"reading the project's files failed: {told['type']}: {told['message']}", hint=told["hint"])
