"""Interpreters: which one is meant, and what tells one from another."""

from __future__ import annotations

import sys
from pathlib import Path

from flame_host.api import ConfigError, ProvisionError


def fingerprint(python: Path) -> str:
    """Tells one interpreter from another, and from itself after an upgrade, without starting it."""
    real = python.resolve()
    status = real.stat()
    return f"{real} {status.st_size} {status.st_mtime_ns}"


def version(python: Path) -> str:
    """``major.minor``, as the environment's own description says it."""
    for line in (python.parent.parent / "pyvenv.cfg").read_text().splitlines():
        name, _, value = line.partition("=")
        if name.strip() in ("version", "version_info"):
            return ".".join(value.strip().split(".")[:2])
    raise ProvisionError(f"{python.parent.parent} is no virtual environment: its pyvenv.cfg names no version")


def is_ours(wanted: str) -> bool:
    return wanted in (f"{sys.version_info.major}.{sys.version_info.minor}", ".".join(map(str, sys.version_info[:3])))


def satisfies(specifier: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(".".join(map(str, sys.version_info[:3])), prereleases=True)
    except InvalidSpecifier as error:
        raise ConfigError(f"requires-python = {specifier!r}: {error}") from error
