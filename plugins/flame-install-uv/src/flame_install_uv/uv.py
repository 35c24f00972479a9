"""Environments by uv, run as the command it is."""

from __future__ import annotations

import functools
import os
import shutil
from pathlib import Path

from flame_host.api import InstallError, InstallRequest, InterpreterNotFoundError, last_lines, run_command


class UvInstaller:
    """``uv venv`` and ``uv pip install``. The user's own uv configuration and environment hold."""

    name = "uv"

    def identity(self) -> str:
        return f"uv {_version()}"

    def find_python(self, version: str) -> Path:
        argv = [_uv(), "python", "find", "--no-python-downloads", "--no-project", version]
        code, output = run_command(argv, deadline=60, variables={"PATH": _search_path()})
        if code != 0:
            raise InterpreterNotFoundError(
                f"uv finds no Python {version}: {last_lines(output, 3)}",
                hint=f"install it, for instance with  uv python install {version}",
            )
        return Path(output.strip().splitlines()[-1])

    def install(self, request: InstallRequest) -> Path:
        python = request.target / "bin" / "python"
        self._run(request, ["venv", "--quiet", "--no-project", "--allow-existing", "--python", str(request.python), str(request.target)])
        wanted = _requirements(request)
        if wanted:
            # Not hard-linked: a task that writes into its environment must not change the cache of all others. "clone" falls back to
            # hard links where the file system cannot clone; "copy" never does, and shares blocks where it can.
            options = ["--python", str(python), "--link-mode", "copy", "--no-progress", *_sources(request)]
            self._run(request, ["pip", "install", *options, *wanted])
        return python

    def _run(self, request: InstallRequest, arguments: list[str]) -> None:
        code, output = run_command([_uv(), *arguments], log=request.log, deadline=request.deadline)
        if code == 0:
            return
        if code is None:
            raise InstallError(f"uv {arguments[0]} took longer than {request.deadline:g} s and was stopped", log=request.log)
        raise InstallError(
            f"uv could not install what {request.requirements.origin or 'the application'} asks for",
            log=request.log,
            tail=last_lines(output),
            hint=_hint(output, request),
        )


def _search_path() -> str:
    """PATH, and behind it the interpreters that pyenv has but shows only where they are switched on."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin"))
    directories = [directory for directory in os.get_exec_path() if not directory.endswith("/.pyenv/shims")]
    return os.pathsep.join([*directories, *map(str, pyenv)])


def _requirements(request: InstallRequest) -> list[str]:
    needs = request.requirements
    wanted = [argument for path in needs.files for argument in ("-r", str(path))]
    if needs.build is not None:
        wanted.append(str(needs.build))
    if not needs.dependencies:
        return wanted
    return [*wanted, "--", *needs.dependencies]  # a requirement that begins with a dash is none, and no option either


def _sources(request: InstallRequest) -> list[str]:
    found = [argument for directory in request.wheelhouse for argument in ("--find-links", directory)]
    return [*found, "--offline", "--no-index"] if request.offline else found


def _hint(output: str, request: InstallRequest) -> str:
    if request.offline:
        wheels = ", ".join(request.wheelhouse) or "none is set, FLAME_HOST_WHEELHOUSE names one"
        return f"offline, so everything has to be in the wheelhouse: {wheels}"
    if "Failed to fetch" in output or "error sending request" in output:
        return (
            "the package index does not answer: see UV_DEFAULT_INDEX and the proxy settings; without an index, put wheels into a "
            "directory, name it in FLAME_HOST_WHEELHOUSE, and set FLAME_HOST_OFFLINE=1"
        )
    if "not found in the package registry" in output or "No solution found" in output:
        return "a requirement's name or version does not exist; see the lines above for which"
    if "Failed to build" in output:
        return "the package has to be compiled and that failed; see the log"
    return ""


@functools.cache
def _uv() -> str:
    """The uv of our own environment, else the one on PATH."""
    try:
        from uv import find_uv_bin

        return os.fspath(find_uv_bin())
    except (ImportError, FileNotFoundError):
        found = shutil.which("uv")
        if found is None:
            raise InstallError(
                "uv is not to be found", hint='pip install uv, or pip install flame-install-pip and write  installers = ["pip"]'
            ) from None
        return found


@functools.cache
def _version() -> str:
    """Without starting it: by its distribution, or by the file it is."""
    from importlib.metadata import PackageNotFoundError, version

    path = _uv()
    try:
        return version("uv")
    except PackageNotFoundError:
        status = os.stat(path)
        return f"{path} {status.st_size} {status.st_mtime_ns}"
