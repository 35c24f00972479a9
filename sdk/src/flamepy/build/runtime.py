"""What the handlers need of this project, brought along in the archive: a worker's image has none of it."""

from __future__ import annotations

import importlib.util
import shutil
from collections.abc import Iterable
from importlib.metadata import packages_distributions, version
from pathlib import Path
from typing import Any

from flamepy.build.errors import BuildError, Problem
from flamepy.flash.names import MODULES

__all__ = ["bundle_runtime", "refuse_if_there", "serializer_entries"]

_HOST_PARTS = ("__init__.py", "_version.py", "api", "handler.py", "serverless", "py.typed")
_CLIENT_LEFT_OUT = ("build", "cli", "deploy", "pytest_plugin.py")
_LIBRARIES = ("cloudpickle", "pluggy")
OURS = ("flame_host", "flamepy")
_WASTE = shutil.ignore_patterns("__pycache__", "*.pyc")


def bundle_runtime(target: Path, codecs: Iterable[str] = (), *, present: Iterable[str] = (), stand_ins: Iterable[str] = ()) -> list[str]:
    """Copy it in; returns the names of the top-level modules that were.

    Args:
        codecs: further modules, for formats that need some. present: what the dependencies have brought already, in the version
            the project wants. stand_ins: import names of another SDK that the project uses, and that mean ours in the archive.
    """
    refuse_if_there(target)
    host, client = _place_of("flame_host"), _place_of("flamepy")
    (target / "flame_host").mkdir()
    for part in _HOST_PARTS:
        _copy(host / part, target / "flame_host" / part)
    shutil.copytree(client, target / "flamepy", ignore=lambda directory, names: _left_out(client, directory, names))
    copied = list(OURS)
    for name in stand_ins:
        refuse_if_there(target, (name,))
        shutil.copytree(MODULES / name, target / name, ignore=_WASTE)
        copied.append(name)
    for module in dict.fromkeys((*_LIBRARIES, *codecs)):
        if module in set(present):
            continue
        refuse_if_there(target, (module,))
        _copy(_place_of(module), target / module)
        copied.append(module)
    return copied


def serializer_entries(policy: dict[str, str]) -> tuple[list[dict[str, str]], list[str], list[str]]:
    """Formats the handlers admit; the modules to bring along for them; the requirements to install for them."""
    if policy.get("pickle") != "deny":
        return [{"format": "cloudpickle/1"}, {"format": "json/1"}], [], []
    from flame_host import Host

    entries: list[dict[str, str]] = []
    modules: list[str] = []
    requirements: list[str] = []
    for serializer in Host().catalog.all("serializers").values():
        if "executes-code" in serializer.traits:
            continue
        entries.append({"format": f"{serializer.name}/{serializer.version}", "codec": serializer.codec})
        for module in serializer.worker_modules:
            compiled = _requirement_if_compiled(module)
            (requirements if compiled else modules).append(compiled or module)
    return [*entries, {"format": "json/1"}], modules, requirements


def _requirement_if_compiled(module: str) -> str:
    """What is built for one platform is not copied but installed, for the platform the archive is for."""
    place = _place_of(module)
    compiled = [path for path in (place.rglob("*") if place.is_dir() else [place]) if path.suffix in (".so", ".pyd")]
    if not compiled:
        return ""
    distribution = packages_distributions()[module][0]
    return f"{distribution}=={version(distribution)}"


def _place_of(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None:
        raise BuildError(f"{module} is not installed, and the handlers need it", hint=f"pip install {module}")
    locations: Any = spec.submodule_search_locations
    return Path(next(iter(locations))) if locations else Path(str(spec.origin))


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_WASTE)
    else:
        shutil.copyfile(source, target.with_suffix(source.suffix))


def _left_out(client: Path, directory: str, names: list[str]) -> set[str]:
    waste = set(_WASTE(directory, names))
    return waste | set(_CLIENT_LEFT_OUT) if Path(directory) == client else waste


def refuse_if_there(target: Path, names: Iterable[str] = OURS) -> None:
    """The project may not have a package of such a name."""
    problems = [
        Problem(name, 0, "has the name of a package that the handlers need; rename it") for name in names if (target / name).exists()
    ]
    if problems:
        raise BuildError(problems)
