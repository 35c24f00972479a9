"""Environments by the standard library's venv and pip, run as the commands they are."""

from __future__ import annotations

import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from flame_host.api import InstallError, InstallRequest, InterpreterNotFoundError, last_lines, requirements_file, run_command
from flame_install_pip.declared import direct, fingerprint, options_of, refuse_lock


class PipInstaller:
    """``python -m venv`` and ``pip install``. The user's own pip configuration and environment hold."""

    name = "pip"

    def identity(self) -> str:
        settings = fingerprint()
        return f"pip {_version()}" + (f" with settings {settings}" if settings else "")

    def find_python(self, version: str) -> Path:
        from packaging.specifiers import InvalidSpecifier, SpecifierSet

        try:
            specifier = SpecifierSet(version if version[:1] in "<>=!~" else f"=={version}.*" if version.count(".") < 2 else f"=={version}")
        except InvalidSpecifier as error:
            raise InterpreterNotFoundError(f"{version!r} is no version of Python", hint='write "3.12" or ">=3.10"') from error
        found = dict(_interpreters())
        for path, its_version in found.items():
            if specifier.contains(its_version):
                return path
        raise InterpreterNotFoundError(
            f"no Python {version} is to be found; found {', '.join(sorted(set(found.values()))) or 'none'}",
            hint="install it so that pythonX.Y is on PATH",
        )

    def install(self, request: InstallRequest) -> Path:
        refuse_lock(request.requirements)
        if not request.builds:
            raise InstallError(
                "policy says builds = deny, and pip builds what is named by a path or URL whatever it is told",
                hint="use installers = ['uv']",
            )
        python = request.target / "bin" / "python"
        # Without a pip of its own, which takes seconds to lay down: ours installs into it from outside.
        self._run(request, [str(request.python), "-m", "venv", "--without-pip", str(request.target)])
        wanted = _requirements(request)
        named = [*direct(request.requirements), *request.extra]
        if not wanted and not named:
            return python
        with tempfile.TemporaryDirectory(dir=request.variables.get("TMPDIR")) as place, requirements_file(request.target, named) as listed:
            wanted += options_of(request.requirements, Path(place))
            wanted += ["-r", str(listed)] if named else []
            options = ["--no-input", "--disable-pip-version-check", "--progress-bar", "off", *_sources(request)]
            self._run(request, [*_pip(), "--python", str(python), "install", *options, *wanted])
        return python

    def _run(self, request: InstallRequest, argv: list[str]) -> None:
        code, output = run_command(
            argv, log=request.log, deadline=request.deadline, variables=request.variables, directory=request.directory
        )
        if code == 0:
            return
        if code is None:
            raise InstallError(f"pip took longer than {request.deadline:g} s and was stopped", log=request.log)
        raise InstallError(
            f"pip could not install what {request.requirements.origin or 'the application'} asks for",
            log=request.log,
            tail=last_lines(output),
            hint=_hint(output, request),
        )


def _requirements(request: InstallRequest) -> list[str]:
    needs = request.requirements
    wanted = [argument for path in needs.files for argument in ("-r", str(path))]
    if needs.build is not None:
        wanted.append(f"{needs.build}[{','.join(needs.extras)}]" if needs.extras else str(needs.build))
    return wanted


def _sources(request: InstallRequest) -> list[str]:
    found = [argument for directory in request.wheelhouse for argument in ("--find-links", directory)]
    return [*found, "--no-index"] if request.offline else found


def _hint(output: str, request: InstallRequest) -> str:
    if request.offline:
        wheels = ", ".join(request.wheelhouse) or "none is set, FLAME_HOST_WHEELHOUSE names one"
        return f"offline, so everything has to be in the wheelhouse: {wheels}"
    if "Failed to establish a new connection" in output or "Could not fetch URL" in output:
        return (
            "the package index does not answer: see PIP_INDEX_URL and the proxy settings; without an index, put wheels into a directory, "
            "name it in FLAME_HOST_WHEELHOUSE, and set FLAME_HOST_OFFLINE=1"
        )
    if "No matching distribution" in output:
        return "a requirement's name or version does not exist; see the lines above for which"
    if "Failed building" in output or "metadata-generation-failed" in output:
        return "the package has to be built and that failed; see the log"
    return ""


def _interpreters() -> Iterator[tuple[Path, str]]:
    """Interpreters of this machine with their versions, ours first."""
    yield Path(sys.executable), ".".join(map(str, sys.version_info[:3]))
    candidates = [Path(directory, name) for directory in os.get_exec_path() for name in _names()]
    candidates += sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin/python"))
    for path in candidates:
        if path.is_file():
            code, output = run_command([str(path), "-I", "-c", "import platform; print(platform.python_version())"], deadline=10)
            if code == 0:
                yield path, output.strip()


def _names() -> list[str]:
    return ["python3", *(f"python3.{minor}" for minor in range(30, 7, -1))]


@functools.cache
def _pip() -> tuple[str, ...]:
    """Ours, run on our own interpreter; an environment made by uv has none, then the one on PATH."""
    from importlib.util import find_spec

    if find_spec("pip") is not None:
        return (sys.executable, "-m", "pip")
    found = shutil.which("pip") or shutil.which("pip3")
    if found is None:
        raise InstallError("pip is not to be found", hint='python -m ensurepip, or write  installers = ["uv"]')
    return (found,)


@functools.cache
def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("pip")
    except PackageNotFoundError:
        path = _pip()[0]
        status = os.stat(path)
        return f"{path} {status.st_size} {status.st_mtime_ns}"
