"""Unpacking an archive in a process that can be killed, and telling which archiver reads it."""

from __future__ import annotations

import json
import marshal
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flame_host._packages.children import ask
from flame_host._packages.unpack.tree import TreeSummary
from flame_host.api import ArchiveError, ArchiveLimitError, Archiver, FlameError, Limits, PluginError, UnsafeArchiveError

__all__ = ["recognise", "reference_to", "unpack"]

CHILD = Path(__file__).with_name("child.py")
ANSWER_BYTES = 1 << 20
ERRORS: dict[str, type[FlameError]] = {kind.__name__: kind for kind in (ArchiveError, UnsafeArchiveError, ArchiveLimitError)}


def recognise(path: Path, archivers: Iterable[Archiver], *, name: str = "") -> Archiver:
    """The archiver that a file's name announces and its first bytes confirm.

    Args:
        name: judge by this file name instead of the path's own, which may be a temporary one.

    Raises:
        ArchiveError: no suffix fits, or the content is of another kind.
    """
    known = list(archivers)
    name = (name or path.name).lower()
    fitting = [(len(suffix), archiver) for archiver in known for suffix in archiver.suffixes if name.endswith(suffix)]
    if not fitting:
        suffixes = sorted(suffix for archiver in known for suffix in archiver.suffixes)
        hint = f"known are {', '.join(suffixes)}" if suffixes else "no archive plugin is active"
        raise ArchiveError(f"{name!r} has the suffix of no known archive", hint=hint)
    archiver = max(fitting, key=lambda pair: pair[0])[1]
    if not _shows_magic(path, archiver):
        others = [other.name for other in known if _shows_magic(path, other)]
        found = f"its content looks like {' or '.join(others)}" if others else "its content is not of that kind"
        raise ArchiveError(f"{name!r} should be {archiver.name} by its suffix, but {found}")
    return archiver


def _shows_magic(path: Path, archiver: Archiver) -> bool:
    with path.open("rb") as source:
        for offset, magic in archiver.magic:
            source.seek(offset)
            if source.read(len(magic)) == magic:
                return True
    return False


def reference_to(archiver: Archiver) -> str:
    """How another process finds the provider: ``module:Class``; the class must be one that can be made without arguments."""
    kind = type(archiver)
    if "<locals>" in kind.__qualname__ or kind.__module__ == "__main__":
        raise PluginError(
            f"archiver {archiver.name!r} is of a class that another process cannot import: {kind.__module__}.{kind.__qualname__}",
            hint="define the class at the top level of the plugin's module",
        )
    return f"{kind.__module__}:{kind.__qualname__}"


def unpack(archive: Path, target: Path, archiver: Archiver | str, limits: Limits, *, name: str = "") -> TreeSummary:
    """Unpack into a directory that is made here, in a child process that is killed at the deadline.

    On error the directory stays behind half-made: whoever publishes directories moves it to the trash.

    Args:
        archiver: a provider, or ``module:attribute`` of one, of its class, or of a hook that returns it.
        name: which of the hook's providers, when a hook is referred to.

    Raises:
        UnsafeArchiveError, ArchiveLimitError, ArchiveError: what is wrong with the archive. OSError: the disk failed.
        PluginError: the child cannot load the archiver.
    """
    reference = archiver if isinstance(archiver, str) else reference_to(archiver)
    name = name or (reference if isinstance(archiver, str) else archiver.name)
    size = archive.stat().st_size
    if size > limits.compressed_bytes:
        raise ArchiveLimitError("compressed-bytes", f"the archive has {size} bytes; {limits.compressed_bytes} are allowed")
    target.mkdir(0o755)
    order = marshal.dumps(
        {
            "path": [entry or os.getcwd() for entry in sys.path],
            "reference": reference,
            "name": name,
            "archive": os.fspath(archive.absolute()),
            "target": os.fspath(target.absolute()),
            "limits": asdict(limits),
        }
    )
    try:
        answer, complaint = ask(CHILD, order, limits.seconds, ANSWER_BYTES)
    except TimeoutError:
        raise ArchiveLimitError("seconds", f"unpacking took longer than {limits.seconds:g} s and was stopped") from None
    return _interpret(answer, complaint, name)


def _interpret(answer: bytes, complaint: str, name: str) -> TreeSummary:
    if not answer:
        raise ArchiveError(f"the process that unpacks {name} ended without an answer: {complaint.strip()[-2000:]}")
    told: dict[str, Any] = json.loads(answer)
    if "type" not in told:
        return TreeSummary(told["count"], told["bytes"])
    kind, text, facts = told["type"], told["text"], told["facts"]
    if kind in ERRORS:
        error = ERRORS[kind].__new__(ERRORS[kind])
        FlameError.__init__(error, facts.pop("message", text), hint=facts.pop("hint", ""))
        error.__dict__.update(facts)
        raise error
    if kind == "MemoryError":
        raise ArchiveLimitError("memory", "unpacking needs more memory than it may have")
    if isinstance(facts.get("errno"), int):
        raise OSError(facts["errno"], f"cannot unpack: {text}")
    if kind in ("ImportError", "ModuleNotFoundError", "AttributeError", "StopIteration"):
        raise PluginError(f"the process that unpacks cannot use the archiver {name}: {kind}: {text}")
    raise ArchiveError(f"the reader of {name} failed: {kind}: {text}")
