"""Interpreters: which one is meant, and what tells one from another."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from flame_host.api import Application, ConfigError, Installer, InterpreterNotFoundError, ProvisionError, Requirements, run_command


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


def spelled(wanted: str) -> str:
    """One spelling: ``3.12``, a specifier, or a path. ``python3.12``, ``cpython@3.12`` and ``==3.12.*`` mean the first."""
    text = wanted.strip()
    if os.sep in text:
        return os.path.expanduser(text)
    for prefix in ("cpython", "python", "py", "@", "-", "=="):
        text = text.removeprefix(prefix) if text[:3].lower() != "pyp" else text
    return text.strip().removesuffix(".*")


def is_ours(wanted: str) -> bool:
    """Whether this interpreter is what is meant."""
    if os.sep in wanted:
        return os.path.realpath(wanted) == os.path.realpath(sys.executable) and wanted == sys.executable
    if wanted[:1] in "<>=!~":
        return satisfies(wanted)
    return wanted in (
        f"{sys.version_info.major}",
        f"{sys.version_info.major}.{sys.version_info.minor}",
        ".".join(map(str, sys.version_info[:3])),
    )


def minor_of(wanted: str) -> str:
    """``major.minor`` of what a wish would give, without looking for it; empty when that cannot be said."""
    wanted = spelled(wanted)
    if not wanted:
        return ""
    if is_ours(wanted):
        return f"{sys.version_info.major}.{sys.version_info.minor}"
    if os.sep in wanted:
        return _asked(existing(wanted))
    if wanted[:1] in "<>=!~":
        from packaging.specifiers import SpecifierSet

        specifier = SpecifierSet(wanted)
        return next((f"3.{minor}" for minor in range(8, 40) if specifier.contains(f"3.{minor}.99") or specifier.contains(f"3.{minor}")), "")
    match = re.match(r"(\d+\.\d+)", wanted)
    return match[1] if match else ""


def existing(path: str) -> Path:
    """An interpreter named by its path."""
    if not os.access(path, os.X_OK):
        raise InterpreterNotFoundError(f"there is no interpreter at {path}", hint='name one that is there, or a version: "3.12"')
    return Path(path)


def _asked(python: Path) -> str:
    code, output = run_command([str(python), "-I", "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], deadline=20)
    return output.strip() if code == 0 else ""


def satisfies(specifier: str) -> bool:
    from packaging.specifiers import InvalidSpecifier, SpecifierSet

    try:
        return SpecifierSet(specifier).contains(".".join(map(str, sys.version_info[:3])), prereleases=True)
    except InvalidSpecifier as error:
        raise ConfigError(f"requires-python = {specifier!r}: {error}") from error


def chosen(application: Application, needs: Requirements, installer: Installer) -> Path:
    """The interpreter for an application: the one it names, or that fits its project; ours where nothing is said against it.

    Raises:
        InterpreterNotFoundError: there is none. ConfigError: a package names one by its path.
    """
    wanted = spelled(application.python_version or needs.python)
    if not wanted or is_ours(wanted):
        return Path(sys.executable)
    if os.sep in wanted:
        if not application.python_version:
            raise ConfigError(
                f"the package asks for the interpreter {wanted!r:.200} ({needs.origin}); a package may ask for a version only",
                hint='write a version into .python-version, or say  Runner(python_version="/path/of/python")',
            )
        return existing(wanted)
    try:
        return installer.find_python(wanted)
    except InterpreterNotFoundError as error:
        if application.python_version:
            raise
        ours = f"{sys.version_info.major}.{sys.version_info.minor}"
        raise InterpreterNotFoundError(
            f"the project needs Python {needs.python} ({needs.origin}), this is {ours}; no other fits: {error.message}",
            hint=error.hint or 'name one that fits: Runner(python_version="3.x")',
        ) from error
