"""Applications, their sessions, and what is told about them: frozen values.

Sizes are bytes, durations seconds, times POSIX seconds unless a name says otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum

from flame_host.api.buffers import Payload
from flame_host.api.errors import ConfigError
from flame_host.api.packages import PackageRef

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,252}")


_PYTHON = re.compile(r"(python)?\d+(\.\d+){0,2}t?|\s*(>=|<=|==|!=|~=|<|>)\s*\d[\d.*]*(\s*,\s*(>=|<=|==|!=|~=|<|>)\s*\d[\d.*]*)*\s*")


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


def is_python_version(text: object) -> bool:
    """Whether it is a version of Python or a specifier of some, and hence neither a path nor an option: all that a peer may ask for."""
    return isinstance(text, str) and _PYTHON.fullmatch(text) is not None


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
        python_version: interpreter wanted, empty for the package's or the host's; by its absolute path only from a client on the
            host's own machine: what comes over a wire is asked `is_python_version`.
        working_directory: current directory of its workers, absolute; empty lets the host choose.
        environments: variables of the workers; they may be secrets, so no repr shows them.
        max_instances: most executors a session may have. delay_release: seconds an idle executor is kept.

    Raises:
        ConfigError: the name could not name a directory, or the Python is none.
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
        python = self.python_version
        if python and not is_python_version(python) and not (isinstance(python, str) and python.startswith("/") and python.isprintable()):
            raise ConfigError(f"{python!r:.100} is no version of Python", hint='write "3.12", ">=3.10" or the path of an interpreter')


@dataclass(frozen=True)
class Resources:
    """What one executor needs: CPU cores (half a one, too), bytes of memory, GPUs."""

    cpu: float = 1
    memory: int = 0
    gpu: int = 0


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
    """Something an observer may care about.

    Attributes:
        kind: one of `flame_host.api.EVENTS`, or an engine's own.
        session_id: empty where no session is meant. task: its number, 0 where no single one is meant.
    """

    kind: str
    time: float
    session_id: str = ""
    task: int = 0
    detail: str = ""
