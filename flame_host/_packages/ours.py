"""Distributions of this project among an application's requirements, and strangers that go by their name."""

from __future__ import annotations

import functools
import re
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, distribution, packages_distributions, version
from pathlib import Path

from flame_host._packages.neighbours import split_requirement
from flame_host._packages.reading import text_of
from flame_host.api import ConfigError, InstallError

CLIENT = "flame-host-sdk"
_MODULE = re.compile(r"^flamepy(/|\.py,)", re.MULTILINE)
"""A line of a RECORD with a file of that module."""


def without_ours(requirements: Sequence[str]) -> tuple[str, ...]:
    """Without those that every worker is given from here, in the version that runs here.

    Raises:
        ConfigError: another version is asked for.
    """
    kept = []
    for requirement in requirements:
        name, _, target = split_requirement(requirement)
        if not name.startswith("flame-") or target or name not in _installed():
            kept.append(requirement)
            continue
        _check_version(requirement, name)
    return tuple(kept)


def is_named_in(files: Sequence[Path]) -> bool:
    """Whether requirements files ask for one of them."""
    return any(_is_ours(line) for path in files for line in text_of(path, errors="replace").splitlines())


def take_out_of(files: Sequence[Path]) -> None:
    """Comment them out of copies of requirements files."""
    for path in files:
        lines = text_of(path, errors="replace").splitlines()
        kept = [
            f"# {line}  (workers have it)" if _is_ours(line) and not without_ours([line.partition("#")[0].strip()]) else line
            for line in lines
        ]
        if kept != lines:
            path.write_text("\n".join(kept) + "\n", encoding="utf-8")


def _is_ours(line: str) -> bool:
    return split_requirement(line.partition("#")[0].strip())[0].startswith("flame-")


def _check_version(requirement: str, name: str) -> None:
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        wanted = Requirement(requirement).specifier
    except InvalidRequirement:
        return
    if not wanted.contains(version(name), prereleases=True):
        raise ConfigError(
            f"the project asks for {requirement}, and this host is {name} {version(name)}; workers get that of their host",
            hint=f"install {requirement!r} here, or ask for what is installed",
        )


@functools.cache
def _installed() -> frozenset[str]:
    from flame_host._plugins.loading import scan

    names = {"flame-host", CLIENT, *(found.distribution for found in scan())}
    return frozenset(name for name in names if name in names and _is_installed(name))


def _is_installed(name: str) -> bool:
    try:
        distribution(name)
    except PackageNotFoundError:
        return False
    return True


def refuse_strangers(environment: Path) -> None:
    """An environment with a ``flamepy`` that is not this project's would run that in place of it."""
    for packages in environment.glob("lib/python*/site-packages"):
        if not (packages / "flamepy").exists() and not (packages / "flamepy.py").exists():
            continue
        for info in sorted(packages.glob("*.dist-info")):
            name, _, its_version = info.name.removesuffix(".dist-info").rpartition("-")
            record = info / "RECORD"
            if name.replace("_", "-") != CLIENT and record.is_file() and _MODULE.search(record.read_text(errors="replace")):
                raise InstallError(
                    f"the module flamepy comes from the distribution {name} {its_version}, which is not this one's ({CLIENT})",
                    hint=f"take {name} out of the project's requirements; workers have flamepy without asking",
                )


def stranger_here() -> str:
    """The distribution that ``flamepy`` belongs to in this interpreter, when it is another."""
    owners = packages_distributions().get("flamepy", [])
    return next((owner for owner in owners if owner.lower().replace("_", "-") != CLIENT), "")
