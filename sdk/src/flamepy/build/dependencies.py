"""What the project's code needs, installed beside it for the platform and Python the archive is for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from packaging.requirements import InvalidRequirement, Requirement

from flame_host.api import InstallError
from flamepy._config.settings import ToolTable
from flamepy.build.errors import BuildError, Problem
from flamepy.build.processes import run
from flamepy.build.targets import Target

__all__ = ["HTTP_REQUIREMENTS", "Selection", "install", "requirements_of", "resolution_order", "take_over", "unfit"]

_SECONDS = 1800
HTTP_REQUIREMENTS = ("fastapi>=0.100", "uvicorn>=0.20", "python-multipart")
"""Of resources with routes."""
_BUNDLED = {"flame-host", "flame-host-sdk", "flamepy", "runpod-flash", "tetra-rp"}
"""What the archive brings itself, or stands in for."""
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
BROUGHT_BY_FLASH = {
    "fastapi": "fastapi",
    "uvicorn": "uvicorn",
    "pydantic": "pydantic",
    "dotenv": "python-dotenv",
    "httpx": "httpx",
    "rich": "rich",
    "typer": "typer",
    "questionary": "questionary",
    "pathspec": "pathspec",
    "tomli": "tomli",
    "aiohttp": "aiohttp",
    "boto3": "boto3",
    "requests": "requests",
    "tqdm": "tqdm",
    "yaml": "pyyaml",
    "jinja2": "jinja2",
    "click": "click",
    "psutil": "psutil",
    "backoff": "backoff",
}
"""Modules a program for RunPod Flash may import without saying so, because that SDK depends on them; and what provides them."""
_INCLUDE = re.compile(r"^(-r|--requirement|-c|--constraint)[ =]\s*(.+)$")
_MACHINE_FILES = {"direct_url.json", "uv_cache.json", ".lock", "uv_build.json"}
"""Say where and when something was installed: two builds of the same would differ by them."""


@dataclass(frozen=True)
class Selection:
    """What is to be installed.

    Attributes:
        requirements: as lines of a file. no_deps: only what is named, not what that depends on.
        without: distributions that are left out, even where others depend on them.
    """

    requirements: tuple[str, ...]
    without: frozenset[str] = frozenset()
    no_deps: bool = False


def unfit(lines: Iterable[str], file: str, line: int) -> list[Problem]:
    """Declared requirements that are none: options of an installer and paths would do more than name something to install."""
    problems = []
    for text in lines:
        try:
            Requirement(text)
        except InvalidRequirement as error:
            why = str(error).splitlines()[0]
            message = f"the dependency {text!r} is no requirement (PEP 508): {why}; write a name and versions, or  name @ https://…"
            problems.append(Problem(file, line, message))
    return problems


def requirements_of(root: Path, declared: Iterable[str], needed: Iterable[str] = ()) -> list[str]:
    """Lines as an installer reads them: of ``requirements.txt``, ``pyproject.toml``, ``[tool.flame]`` and the decorators.

    Args:
        declared: by the resources and decorators. needed: by the handlers; added unless the project names them itself.
    """
    lines = [*_of_file(root / "requirements.txt"), *_of_pyproject(root), *ToolTable.of(root).values.get("dependencies", ()), *declared]
    wanted = [line for line in dict.fromkeys(lines) if _name_of(line) not in _BUNDLED]
    names = {_name_of(line) for line in wanted}
    return [*wanted, *(line for line in dict.fromkeys(needed) if _name_of(line) not in names)]


def _of_file(path: Path) -> list[str]:
    if not path.is_file():
        return []
    lines = []
    text = path.read_text(encoding="utf-8", errors="replace").replace("\\\n", " ")
    for number, raw in enumerate(text.splitlines(), 1):
        line = re.sub(r"(^|\s+)#.*$", "", raw).strip()
        if line.startswith(("-e", "--editable")):
            raise BuildError([Problem(path.name, number, f"{line!r} is installed in place and cannot travel; name what it provides")])
        include = _INCLUDE.match(line)
        if include:
            line = f"{include[1]} {path.parent / include[2].strip()}"
        if line:
            lines.append(line)
    return lines


def _of_pyproject(root: Path) -> list[str]:
    path = root / "pyproject.toml"
    if not path.is_file():
        return []
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    project: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8")).get("project", {})
    if "dependencies" in project.get("dynamic", ()):
        raise BuildError([Problem(path.name, 0, "dependencies are dynamic, which only a build of the project could tell; list them")])
    return [str(line) for line in project.get("dependencies", ())]


def _name_of(line: str) -> str:
    match = _NAME.match(line)
    return re.sub(r"[-_.]+", "-", match[0]).lower() if match else ""


def install(selection: Selection, directory: Path, project: Path, target: Target) -> None:
    """Install into a directory of its own, and take out of it what is not the same everywhere.

    Raises:
        InstallError: with the last lines of what the installer said.
    """
    directory.mkdir(parents=True)
    order = [*_installer(target), "--target", os.fspath(directory), *_files(selection, directory)]
    # Paths in requirements are relative to the project, so that is where it must run.
    try:
        done = run(order, cwd=project, seconds=_SECONDS)
    except subprocess.TimeoutExpired as error:
        raise InstallError(
            f"the dependencies of the handlers were not installed within {_SECONDS} s", tail=str(error.output or "")
        ) from error
    if done.returncode:
        tail = "\n".join((done.stdout + done.stderr).strip().splitlines()[-20:])
        raise InstallError("the dependencies of the handlers cannot be installed", tail=tail, hint=_hint(target))
    _normalise(directory)


def resolution_order(selection: Selection, directory: Path, target: Target) -> list[str] | None:
    """How to ask what would be installed; None where that cannot be asked."""
    uv = _uv()
    if uv is None or selection.no_deps:
        return None
    python = ["--python-version", target.python] if target.python else []
    platform = ["--python-platform", target.platform] if target.platform else []
    files = _files(selection, directory)
    sources = [word for word in files if word != "-r"]  # here a file is named without an option
    return [uv, "pip", "compile", "--quiet", "--python", sys.executable, *_sources(uv), *python, *platform, *sources]


def _files(selection: Selection, directory: Path) -> list[str]:
    wanted = directory.with_name(f"{directory.name}.txt")
    wanted.write_text("\n".join(selection.requirements) + "\n", encoding="utf-8")
    words = ["-r", os.fspath(wanted)]
    if selection.no_deps:
        words.append("--no-deps")
    if selection.without:
        if _uv() is None:
            raise BuildError("packages can be left out with uv only, and it is not installed", hint="pip install uv")
        never = directory.with_name(f"{directory.name}.without.txt")
        never.write_text("".join(f"{name} ; python_version < '0'\n" for name in sorted(selection.without)), encoding="utf-8")
        words += ["--overrides", os.fspath(never)]
    return words


def _uv() -> str | None:
    return shutil.which("uv") or shutil.which("uv", path=os.path.dirname(sys.executable))


def _hint(target: Target) -> str:
    if target.is_this:
        return "try it by hand:  uv pip install --target DIRECTORY …"
    return "for another platform or Python only wheels are taken: is there one of every dependency?"


def _sources(uv: str | None) -> list[str]:
    from flame_host import Host

    settings = Host().settings
    words = [word for directory in settings.wheelhouse for word in ("--find-links", directory)]
    if settings.offline:
        words += ["--offline", "--no-index"] if uv else ["--no-index"]
    return words


def _installer(target: Target) -> list[str]:
    uv = _uv()
    order = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--link-mode", "copy"] if uv else _pip()
    order += _sources(uv)
    if target.platform and not (target.is_this and not uv):
        order += ["--python-platform" if uv else "--platform", target.platform]
    if not target.is_this:
        order += ["--only-binary", ":all:"]
        if target.python:
            order += ["--python-version", target.python]
    return order


def _pip() -> list[str]:
    return [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-input", "--no-compile"]


def _normalise(directory: Path) -> None:
    """Bytecode and start scripts name this machine's paths and times; no worker starts a script."""
    shutil.rmtree(directory / "bin", ignore_errors=True)
    for path in sorted(directory.rglob("*"), reverse=True):
        if path.name == "__pycache__":
            shutil.rmtree(path)
        elif path.is_file() and (path.suffix == ".pyc" or path.name in _MACHINE_FILES):
            path.unlink()
    for record in directory.glob("*.dist-info/RECORD"):
        lines = record.read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if (directory / line.rpartition(",")[0].rpartition(",")[0].strip('"')).is_file()]
        record.write_text("\n".join(sorted(kept)) + "\n", encoding="utf-8")


def take_over(installed: Path, build: Path, roots: Sequence[str]) -> list[str]:
    """Move what was installed beside the project's files; returns its top-level names.

    Raises:
        BuildError: something installed has the name of something of the project.
    """
    own = {entry.name.casefold(): f"{root}/{entry.name}".removeprefix("./") for root in reversed(roots) for entry in _entries(build / root)}
    own |= {name.removesuffix(".py"): shown for name, shown in own.items() if name.endswith(".py")}
    names = sorted(entry.name for entry in installed.iterdir())
    problems = [
        Problem(own[key], 0, f"has the name of a dependency's {name!r}; one would hide the other, so rename it or leave it out")
        for name in names
        if (key := name.casefold().removesuffix(".py")) in own
    ]
    if problems:
        raise BuildError(problems)
    for name in names:
        shutil.move(installed / name, build / name)
    return names


def _entries(directory: Path) -> list[Path]:
    return list(directory.iterdir()) if directory.is_dir() else []
