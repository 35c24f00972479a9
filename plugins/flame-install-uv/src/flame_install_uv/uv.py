"""Environments by uv, run as the command it is."""

from __future__ import annotations

import functools
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from flame_host.api import (
    InstallError,
    InstallRequest,
    InterpreterNotFoundError,
    Requirements,
    last_lines,
    requirements_file,
    run_command,
)
from flame_install_uv.settings import PROJECT_VARIABLES, fingerprint, project_text


class UvInstaller:
    """``uv venv``, ``uv export`` and ``uv pip install``. The user's own uv configuration and environment hold."""

    name = "uv"

    def identity(self) -> str:
        settings = fingerprint()
        return f"uv {_version()}" + (f" with settings {settings}" if settings else "")

    def find_python(self, version: str) -> Path:
        argv = [_uv(), "python", "find", "--no-python-downloads", "--no-project", version]
        code, output = run_command(argv, deadline=60, variables={"PATH": _search_path(), **_neutral()})
        if code != 0:
            raise InterpreterNotFoundError(
                f"uv finds no Python {version}: {last_lines(output, 3)}",
                hint=f"install it, for instance with  uv python install '{version}'",
            )
        return Path(output.strip().splitlines()[-1])

    def install(self, request: InstallRequest) -> Path:
        python = request.target / "bin" / "python"
        needs = request.requirements
        self._run(request, ["venv", "--quiet", "--no-project", "--allow-existing", "--python", str(request.python), str(request.target)])
        with tempfile.TemporaryDirectory(dir=request.variables.get("TMPDIR")) as place:
            scratch = Path(place)
            if needs.lock is not None:
                self._install_locked(request, python, needs.lock, scratch)
            elif needs.settings or needs.locals:
                self._install_declared(request, python, scratch)
            else:
                self._pip(request, python, _requirements(needs), needs.dependencies)
            if request.extra:
                self._pip(request, python, self._held(request, python, scratch), request.extra)
        return python

    def _install_locked(self, request: InstallRequest, python: Path, lock: Path, scratch: Path) -> None:
        """What the lock says, with its hashes; a lock that does not fit the project any more is refused."""
        needs = request.requirements
        local = [str(item.path) for item in needs.locals] + ([str(needs.build)] if needs.build is not None else [])
        if lock.name == "pylock.toml":
            self._pip(request, python, ["-r", str(lock)])
            if needs.build is not None:
                self._pip(request, python, ["--no-deps", *local])
            return
        offline = request.offline
        exported = scratch / ("requirements.txt" if offline else "pylock.toml")
        chosen = [*(f"--extra={extra}" for extra in needs.extras), *(f"--group={group}" for group in needs.groups)]
        what = (
            ["--script", str(needs.project)]
            if needs.project and needs.project.is_file()
            else ["--project", str(needs.project), "--no-default-groups"]
        )
        # Of what has to be built, what stands beside it is not looked over here: the lock names it.
        emitted = ["--no-emit-project" if needs.build is not None else "--no-emit-local"]
        emitted += [f"--no-emit-package={name}" for name in needs.left_out]
        form = "requirements.txt" if offline else "pylock.toml"
        self._run(
            request,
            ["export", "--quiet", "--locked", "--no-header", "--format", form, "--python", str(request.python), *what, *chosen, *emitted,
             "--output-file", str(exported), *_sources(request)],
        )  # fmt: skip
        self._pip(request, python, ["--no-deps", "-r", str(exported)])
        if local:
            self._pip(request, python, ["--no-deps", *local])

    def _install_declared(self, request: InstallRequest, python: Path, scratch: Path) -> None:
        """By a project file of our own that carries the project's settings: sources, indexes, constraints, overrides."""
        needs = request.requirements
        text = project_text(needs.dependencies, needs.settings, {item.name: item.path for item in needs.locals})
        (scratch / "pyproject.toml").write_text(text, encoding="utf-8")
        self._pip(request, python, ["-r", str(scratch / "pyproject.toml")], directory=scratch)

    def _held(self, request: InstallRequest, python: Path, scratch: Path) -> list[str]:
        """What is there stays as it is: the application's own requirements come on top of the project's versions."""
        if request.requirements.lock is None:
            return []
        code, output = run_command([_uv(), "pip", "freeze", "--quiet", "--python", str(python)], deadline=60, variables=_neutral())
        lines = [line for line in output.splitlines() if "==" in line] if code == 0 else []
        (scratch / "constraints.txt").write_text("\n".join(lines) + "\n")
        return ["--constraint", str(scratch / "constraints.txt")]

    def _pip(
        self, request: InstallRequest, python: Path, options: list[str], named: Sequence[str] = (), directory: Path | None = None
    ) -> None:
        """``uv pip install``; what is named goes by a file, for it may hold tokens."""
        if not options and not named:
            return
        # Not hard-linked: a task that writes into its environment must not change the cache of all others. "clone" falls back to hard
        # links where the file system cannot clone; "copy" never does, and shares blocks where it can. Compiled here, for nothing writes
        # into a finished environment.
        argv = ["pip", "install", "--python", str(python), "--link-mode", "copy", "--compile-bytecode", "--no-progress", *_sources(request)]
        if not named:
            self._run(request, [*argv, *options], directory)
            return
        with requirements_file(request.target, named) as listed:
            self._run(request, [*argv, *options, "-r", str(listed)], directory)

    def _run(self, request: InstallRequest, arguments: list[str], directory: Path | None = None) -> None:
        code, output = run_command(
            [_uv(), *arguments],
            log=request.log,
            deadline=request.deadline,
            variables={**_neutral(), **request.variables},
            directory=directory or request.directory,
        )
        if code == 0:
            return
        if code is None:
            raise InstallError(f"uv {arguments[0]} took longer than {request.deadline:g} s and was stopped", log=request.log)
        origin = request.requirements.origin or "the application"
        if "needs to be updated" in output and arguments[0] == "export":
            raise InstallError(
                f"{request.requirements.lock.name if request.requirements.lock else 'the lock'} does not fit {origin} any more",
                log=request.log,
                tail=last_lines(output),
                hint=_relock(request.requirements),
            )
        raise InstallError(
            f"uv could not install what {origin} asks for",
            log=request.log,
            tail=last_lines(output),
            hint=_hint(output, request),
        )


def _neutral() -> dict[str, str]:
    """Variables about our caller's project mean nothing here; an empty one is as good as none."""
    return {name: "" for name in PROJECT_VARIABLES if name in os.environ}


def _search_path() -> str:
    """PATH, and behind it the interpreters that pyenv has but shows only where they are switched on."""
    pyenv = sorted(Path("~/.pyenv/versions").expanduser().glob("3.*/bin"))
    directories = [directory for directory in os.get_exec_path() if not directory.endswith("/.pyenv/shims")]
    return os.pathsep.join([*directories, *map(str, pyenv)])


def _requirements(needs: Requirements) -> list[str]:
    wanted = [argument for path in needs.files for argument in ("-r", str(path))]
    if needs.build is not None:
        wanted.append(f"{needs.build}[{','.join(needs.extras)}]" if needs.extras else str(needs.build))
    return wanted


def _sources(request: InstallRequest) -> list[str]:
    found = [argument for directory in request.wheelhouse for argument in ("--find-links", directory)]
    found += [] if request.builds else ["--no-build"]
    return [*found, "--offline", "--no-index"] if request.offline else found


def _relock(needs: Requirements) -> str:
    script = needs.project.name if needs.project is not None and needs.project.is_file() else ""
    return f"run  uv lock --script {script}" if script else "run  uv lock  in the project"


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
