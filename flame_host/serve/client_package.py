"""The stock client's package, for programs of stock clients that import it: an environment of its own, made when first needed."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flame_host import Host
from flame_host._packages.directories import ContentStore, Entry
from flame_host._packages.interpreters import fingerprint, is_ours, spelled
from flame_host._private import make_private
from flame_host.api import FlameError, InstallRequest, Requirements

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ClientPackage:
    """Where it is. ``python`` is an interpreter that has it, ``packages`` the directory it stands in."""

    python: Path
    packages: Path


class ClientPackages:
    """One for each version of Python; safe to use from every thread.

    Args:
        requirement: what to install, empty for nothing.
    """

    def __init__(self, host: Host, requirement: str) -> None:
        self._host = host
        self._requirement = requirement
        self._lock = threading.Lock()
        self._turns: dict[str, threading.Lock] = {}
        self._found: dict[str, ClientPackage | None] = {}
        self._entries: list[Entry] = []

    def get(self, python_version: str = "") -> ClientPackage | None:
        """None when there is none: a warning has said why, and programs that import it fail in doing so."""
        if not self._requirement:
            return None
        wanted = spelled(python_version)
        with self._lock:
            turn = self._turns.setdefault(wanted, threading.Lock())
        with turn:
            if wanted not in self._found:
                try:
                    self._found[wanted] = self._made(wanted)
                except FlameError as error:
                    log.warning("%s could not be installed; programs that import flamepy will not find it: %s", self._requirement, error)
                    return None  # asked again, it is tried again
            return self._found[wanted]

    def _made(self, wanted: str) -> ClientPackage:
        installer = self._host.catalog.installer("uv")
        python = Path(sys.executable) if not wanted or is_ours(wanted) else installer.find_python(wanted)
        facts = ["client", self._requirement, installer.identity(), fingerprint(python), self._host.settings.offline]
        key = hashlib.sha256(json.dumps(facts).encode()).hexdigest()
        settings = self._host.settings

        def build(target: Path) -> Mapping[str, Any]:
            logs = make_private(settings.root / "logs")
            request = InstallRequest(
                target,
                python,
                Requirements(dependencies=(self._requirement,)),
                logs / f"client-{key[:16]}.log",
                deadline=settings.install_seconds,
                wheelhouse=settings.wheelhouse,
                offline=settings.offline,
            )
            return {"python": str(installer.install(request)), "application": "flamepy"}

        entry = ContentStore(settings.root).ensure("envs", key, build)
        self._entries.append(entry)
        found = Path(entry.facts["python"])
        return ClientPackage(found, next(iter(sorted(entry.path.glob("lib/python*/site-packages")))))

    def close(self) -> None:
        for entry in self._entries:
            entry.release()
