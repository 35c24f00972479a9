"""What builds have made in a project, and how it is removed again."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from flamepy._package.project import checked_root

__all__ = ["ARTEFACTS", "clean_project", "remember"]

ARTEFACTS = ".flash"
_RECORD = "build.json"
_MADE = (".build", ".deps", ".dev", "flash_manifest.json", _RECORD, ".gitignore")


def remember(artefacts: Path, archive: Path, digest: str, size: int) -> None:
    """Note an archive; the newest is the one that is named first."""
    made = {"archive": os.path.relpath(archive, artefacts), "sha256": digest, "size": size}
    others = [entry for entry in _archives(artefacts) if entry["archive"] != made["archive"]]
    record = {**made, "earlier": others}
    (artefacts / _RECORD).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


def _archives(artefacts: Path) -> list[dict[str, Any]]:
    path = artefacts / _RECORD
    if not path.is_file():
        return []
    record = json.loads(path.read_text(encoding="utf-8"))
    return [{key: record[key] for key in ("archive", "sha256", "size")}, *record.get("earlier", ())]


def clean_project(project: str | Path = ".") -> list[Path]:
    """Remove what builds have made, every archive included; returns what was there. What is of somebody else is left alone."""
    artefacts = checked_root(project) / ARTEFACTS
    removed: list[Path] = []
    ours = [artefacts / entry["archive"] for entry in _archives(artefacts) if _is_it(artefacts / entry["archive"], entry["sha256"])]
    for path in (*ours, *(artefacts / name for name in _MADE), *artefacts.glob(".deps.*")):
        if path.is_dir():
            shutil.rmtree(path)
        elif path.exists():
            path.unlink()
        else:
            continue
        removed.append(path)
    if artefacts.is_dir() and not any(artefacts.iterdir()):
        artefacts.rmdir()
    return removed


def _is_it(path: Path, digest: str) -> bool:
    """Whether the file is still the archive that was made."""
    if not path.is_file():
        return False
    return hashlib.sha256(path.read_bytes()).hexdigest() == digest
