"""Frozen values that move between client, engine, host and plugins.

Sizes are bytes, durations seconds, times POSIX seconds unless a name says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeAlias, Union

from flame_host.api.errors import ConfigError
from flame_host.api.redaction import without_secrets

_DIGEST = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")
_PYTHON = re.compile(r"(python)?\d+(\.\d+){0,2}t?|\s*(>=|<=|==|!=|~=|<|>)\s*\d[\d.*]*(\s*,\s*(>=|<=|==|!=|~=|<|>)\s*\d[\d.*]*)*\s*")


def is_digest(text: object) -> bool:
    """Whether it is a SHA-256 as this project writes it: 64 lower-case hex digits, and hence no path."""
    return isinstance(text, str) and _DIGEST.fullmatch(text) is not None


class Segment(Protocol):
    """A large immutable buffer held outside the process's heap (shared memory)."""

    @property
    def size(self) -> int: ...

    def view(self) -> memoryview:
        """Map it read-only; the mapping lives as long as the view does."""
        ...


Buffer: TypeAlias = Union[bytes, bytearray, memoryview, Segment]


@dataclass(frozen=True)
class Payload:
    """A serialized value that says how it is to be read.

    Attributes:
        format: name and major version, ``"cloudpickle/1"``.
        data: the encoded bytes.
        buffers: out-of-band buffers in the order the decoder takes them.
    """

    format: str
    data: bytes
    buffers: tuple[Buffer, ...] = ()

    @property
    def size(self) -> int:
        return len(self.data) + sum(buffer_size(buffer) for buffer in self.buffers)


def buffer_size(buffer: Buffer) -> int:
    if isinstance(buffer, memoryview):
        return buffer.nbytes
    if isinstance(buffer, (bytes, bytearray)):
        return len(buffer)
    return buffer.size


def buffer_view(buffer: Buffer) -> memoryview:
    """The bytes of a buffer, without a copy."""
    return memoryview(buffer) if isinstance(buffer, (bytes, bytearray, memoryview)) else buffer.view()


@dataclass(frozen=True)
class ObjectRef:
    """Where a result or a stored object stands.

    Two references are the same object when endpoint, key and version agree.
    """

    endpoint: str
    key: str
    version: int = 1
    format: str = ""
    size: int = 0
    digest: str = field(default="", compare=False)


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
        extras, groups: chosen ones of the project; already a part of ``dependencies``.
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
        variables: environment for the tools, over this process's own.
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


@dataclass(frozen=True)
class Resources:
    """What one executor needs: CPU cores (half a one, too), bytes of memory, GPUs."""

    cpu: float = 1
    memory: int = 0
    gpu: int = 0


@dataclass(frozen=True)
class Plan:
    """What client and host agreed on; decided once and stored with the application.

    Attributes:
        store: URL scheme. archiver, installer, cache: provider names.
        serializers: formats admitted for payloads, the first is used to write.
        policy: the intersected policy (``{"pickle": "deny"}``).
    """

    store: str = "file"
    archiver: str = "tar.gz"
    installer: str = "uv"
    serializers: tuple[str, ...] = ("cloudpickle/1",)
    cache: str = "local"
    policy: Mapping[str, str] = field(default_factory=dict)

    @property
    def serializer(self) -> str:
        return self.serializers[0]


class Shim(IntEnum):
    HOST = 0
    WASM = 1


class ApplicationState(IntEnum):
    ENABLED = 0
    DISABLED = 1


class SessionState(IntEnum):
    OPEN = 0
    CLOSED = 1


class TaskState(IntEnum):
    PENDING = 0
    RUNNING = 1
    SUCCEED = 2
    FAILED = 3
    CANCELLED = 4


@dataclass(frozen=True)
class Application:
    """A registered application.

    Attributes:
        package: its code; None for code that needs none (``flmrun``).
        dependencies: requirements on top of those the package names.
        python_version: interpreter wanted, empty for the package's or the host's.
        working_directory: current directory of its workers, absolute; empty lets the host choose.
        environments: variables of the workers; they may be secrets, so no repr shows them.
        max_instances: most executors a session may have. delay_release: seconds an idle executor is kept.

    Raises:
        ConfigError: the name could not name a directory, or the Python is a path or an option: both may come from a peer.
    """

    name: str
    package: PackageRef | None = None
    plan: Plan = field(default_factory=Plan)
    dependencies: tuple[str, ...] = ()
    python_version: str = ""
    working_directory: str = ""
    environments: Mapping[str, str] = field(default_factory=dict, repr=False)
    description: str = ""
    labels: tuple[str, ...] = ()
    shim: Shim = Shim.HOST
    command: str = ""
    arguments: tuple[str, ...] = ()
    max_instances: int = 1_000_000
    delay_release: float = 60.0
    state: ApplicationState = ApplicationState.ENABLED
    creation_time: float = 0.0

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name) or ".." in self.name:
            raise ConfigError(f"{self.name!r:.100} is no name for an application", hint="use letters, digits, '.', '_' and '-'")
        if self.python_version and not (isinstance(self.python_version, str) and _PYTHON.fullmatch(self.python_version)):
            raise ConfigError(f"{self.python_version!r:.100} is no version of Python", hint='write "3.12" or ">=3.10"')


@dataclass(frozen=True)
class SessionSpec:
    """How a session is to be opened.

    Attributes:
        common_data: the execution object, serialized once and loaded once per executor.
        stateful: one executor, calls in order, never moved to another worker.
        instantiate: the execution object is a class to be called without arguments when loaded.
        min_instances: executors kept even when idle. warmup: executors started at once.
        max_instances: 0 means as many as the application and the machine allow.
        retries: how often a task is run again after infrastructure failed.
        checkpoint: of a stateful session, after how many successful calls its object is saved. When its worker is lost another one goes
            on from there; 0: the state is lost with the worker.
        resources: what each executor needs: no more run at a time than the machine, or cluster, has room for; None: they are not counted.
        priority: of those that wait for room, the highest gets it first; of no use without ``resources``, and refused.
        timeout: seconds a task may run, 0 for no limit.
        limits: of each worker's process, enforced by the kernel: ``memory`` and ``file_size`` in bytes, ``cpu`` in seconds over the
            worker's life, ``open_files``, ``processes`` of the user. Engines without processes of their own ignore them.
        isolation: ``"process"`` runs each call in a fresh fork of its worker, so that nothing it changes is there for the next one;
            engines that cannot refuse it. Empty: calls share the worker, which puts back what ``docs/explanation/trust.md`` lists.

    Raises:
        ConfigError: an isolation nobody knows, or one for a session that keeps a state.
    """

    application: str
    common_data: Payload
    session_id: str = ""
    stateful: bool = False
    instantiate: bool = False
    min_instances: int = 0
    max_instances: int = 0
    warmup: int = 0
    priority: int = 0
    retries: int = 3
    checkpoint: int = 0
    timeout: float = 0.0
    resources: Resources | None = None
    limits: Mapping[str, int] = field(default_factory=dict)
    isolation: str = ""

    def __post_init__(self) -> None:
        if self.isolation not in ("", "process"):
            raise ConfigError(f"isolation is {self.isolation!r:.40}", hint='write  isolation="process", or leave it out')
        if self.isolation and self.stateful:
            raise ConfigError(
                'isolation="process" forgets what a call changes, and a stateful service is there to keep it',
                hint="serve a function, or say stateful=False",
            )


@dataclass(frozen=True)
class CallOptions:
    """How single calls are to be treated; a field that is None leaves it to the service.

    Attributes:
        timeout: seconds the task may run. retries: how often it is run again after infrastructure failed.
        priority: higher goes first among the tasks of its session that wait. name: shown in place of the task's number.
    """

    timeout: float | None = None
    retries: int | None = None
    priority: int | None = None
    name: str | None = None


@dataclass(frozen=True)
class SessionInfo:
    """A session as an observer sees it."""

    session_id: str
    application: str
    state: SessionState
    creation_time: float
    completion_time: float | None = None
    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


@dataclass(frozen=True)
class LogRecord:
    """Output of a worker: whole lines where the worker prints whole lines.

    Attributes:
        task: number of the task that was running, 0 when none was. stream: ``"stdout"`` or ``"stderr"``.
    """

    session_id: str
    worker: int
    task: int
    stream: str
    text: str


@dataclass(frozen=True)
class Event:
    """Something an observer may care about: a task or session changed its state."""

    kind: str
    time: float
    session_id: str = ""
    task: int = 0
    detail: str = ""


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
class Capability:
    """One thing on offer.

    Attributes:
        name: the key users type. version: major version of the format, where it has one.
        traits: ``"executes-code"``, ``"same-python"``, ``"cross-language"``.
        distribution: the distribution that brings it, for messages.
    """

    name: str
    version: int = 1
    traits: frozenset[str] = frozenset()
    distribution: str = ""


@dataclass(frozen=True)
class Capabilities:
    """What one side can do, by family (``"archivers"`` …), best first.

    Attributes:
        storage: URL below which packages are put when nobody has said where; empty where hosts see this machine's own directories.
    """

    families: Mapping[str, Sequence[Capability]]
    python: str = ""
    platform: str = ""
    storage: str = ""

    def of(self, family: str) -> Sequence[Capability]:
        return self.families.get(family, ())
