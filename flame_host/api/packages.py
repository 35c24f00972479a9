"""What a project becomes on its way to an environment: frozen values.

Sizes are bytes, durations seconds.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple

from flame_host.api.errors import ConfigError
from flame_host.api.redaction import without_secrets

_DIGEST = re.compile(r"[0-9a-f]{64}")


def is_digest(text: object) -> bool:
    """Whether it is a SHA-256 as this project writes it: 64 lower-case hex digits, and hence no path."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


@dataclass(frozen=True)
class PackageRef:
    """A published package: its identity is the digest, the URL is only where to look.

    Attributes:
        digest: SHA-256 of the archive's bytes, lower-case hex; empty while it is not known. It names directories, so nothing else passes.
        format: name of the archiver, ``"tar.gz"``.

    Raises:
        ConfigError: the digest is none.
    """

    url: str
    digest: str
    size: int
    format: str

    def __post_init__(self) -> None:
        if self.digest != "" and not is_digest(self.digest):
            raise ConfigError(f"{self.digest!r:.100} is no SHA-256 of a package", hint="it has 64 digits of 0-9 and a-f")
        if not isinstance(self.url, str) or not isinstance(self.size, int) or self.size < 0:
            raise ConfigError(f"a package of URL {self.url!r:.100} and size {self.size!r:.40} is none")

    def __repr__(self) -> str:
        return f"PackageRef({without_secrets(self.url)!r}, {self.digest!r}, size={self.size}, format={self.format!r})"


class MemberKind(IntEnum):
    """Kind of an archive member; everything that is not listed is ``OTHER`` and refused."""

    FILE = 0
    DIRECTORY = 1
    SYMLINK = 2
    HARDLINK = 3
    OTHER = 4


class Member(NamedTuple):
    """One member of an archive.

    Attributes:
        name: as the archive spells it, ``/``-separated; a directory may end in ``/``.
        size: bytes of content; 0 unless a file.
        executable: whether any execute bit is set; other mode bits do not travel.
        link: target of a link, else empty.
        content: the bytes, as a whole or in pieces. Pieces must be taken before the next member is asked for.
    """

    name: str
    kind: MemberKind = MemberKind.FILE
    size: int = 0
    executable: bool = False
    link: str = ""
    content: bytes | Iterator[bytes] = b""


@dataclass(frozen=True)
class Limits:
    """Budgets of unpacking.

    Attributes:
        ratio: expanded bytes allowed per compressed byte, once more than 16 MiB have been expanded.
        header_bytes: bytes of names and metadata. seconds: wall clock, enforced by killing the child that unpacks.
    """

    compressed_bytes: int = 4 << 30
    expanded_bytes: int = 16 << 30
    member_bytes: int = 8 << 30
    members: int = 500_000
    ratio: int = 200
    header_bytes: int = 256 << 20
    name_bytes: int = 1024
    depth: int = 64
    seconds: float = 900.0


@dataclass(frozen=True)
class LocalProject:
    """A project or archive beside the code, named by a requirement: taken from there and looked up nowhere else.

    Attributes:
        name: as requirements spell it, normalised. path: a directory, or a wheel or sdist.
    """

    name: str
    path: Path


@dataclass(frozen=True)
class Requirements:
    """What must be installed before the code of a tree can run.

    Attributes:
        dependencies: requirement specifiers (PEP 508). One that names a local project means that project.
        files: requirements files, absolute paths.
        build: the project has to be built and installed (setup.py, compiled, dynamic metadata); its directory, else None.
        source_paths: directories relative to the tree that go on ``sys.path``, in order.
        python: wanted interpreter (``"3.11"``, ``">=3.10"``), empty for the host's own.
        origin: where this was read, for messages (``"pyproject.toml [project]"``).
        locals: to be built and installed from where they stand.
        settings: ``[tool.uv]`` as it holds for the project, paths made absolute; ``sources`` in it are those elsewhere: git, url, index.
            An installer honours each or refuses it by name.
        lock: file that decides the versions: ``uv.lock``, ``pylock.toml``, a script's ``.py.lock``.
        project: what is locked: a directory, or a script.
        extras, groups: chosen ones of the project; already a part of ``dependencies``, but for the extras of what has to be built.
        left_out: names of projects that run from the tree, and are not to be installed.
    """

    dependencies: tuple[str, ...] = ()
    files: tuple[Path, ...] = ()
    build: Path | None = None
    source_paths: tuple[str, ...] = (".",)
    python: str = ""
    origin: str = ""
    locals: tuple[LocalProject, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    lock: Path | None = None
    project: Path | None = None
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class ProjectNeeds:
    """A project as it stands on this machine, looked over and not run.

    Attributes:
        requirements: with absolute paths. is_script: they are the script's own (PEP 723).
        travelling: files and directories that installing needs, wherever they stand.
        running: name → directory of each project that runs from where it stands.
        unversioned: those of them whose version no file tells. version_files: the modules that building writes it to.
    """

    requirements: Requirements
    is_script: bool = False
    travelling: tuple[Path, ...] = ()
    running: Mapping[str, Path] = field(default_factory=dict)
    unversioned: Mapping[str, Path] = field(default_factory=dict)
    version_files: Mapping[str, Path] = field(default_factory=dict)


@dataclass(frozen=True)
class InstallRequest:
    """One order to an installer.

    Attributes:
        target: directory to make the environment in; exists and is empty. It is published later, by the caller, and never moved.
        python: absolute path of the interpreter to base it on.
        log: file that receives the whole output, appended.
        deadline: seconds the whole installation may take.
        wheelhouse: directories to look in for wheels and sdists.
        offline: no index may be asked.
        extra: requirements of the application on top of the project's; relative paths in them start at ``directory``.
        directory: to run in, so that relative paths mean what they do in the project; None without one.
        variables: environment for the tools, over this process's own. ``TMPDIR``, where it is among them, is removed when this process is
            killed, too: an installer's own temporary files go there.
        builds: source distributions and projects may be built, which runs code of their authors.
    """

    target: Path
    python: Path
    requirements: Requirements
    log: Path
    deadline: float = 1800.0
    wheelhouse: tuple[str, ...] = ()
    offline: bool = False
    extra: tuple[str, ...] = ()
    directory: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    builds: bool = True


@dataclass(frozen=True)
class Environment:
    """A ready environment: everything a worker needs to start.

    Attributes:
        key: content key of the installed dependencies.
        python: the interpreter to run. python_version: its major and minor version, ``"3.11"``.
        paths: directories put in front of ``sys.path``, in order (the application's tree).
        tree: root of the project in the unpacked package, or None without one. package: root of the package.
        directory: in the package, what was the current directory where it was packed.
        variables: environment variables for the worker, over the host's own.
    """

    key: str
    python: Path
    python_version: str = ""
    paths: tuple[Path, ...] = ()
    tree: Path | None = None
    variables: Mapping[str, str] = field(default_factory=dict)
    package: Path | None = None
    directory: Path | None = None
