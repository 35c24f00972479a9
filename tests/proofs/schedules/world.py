"""The real engine, futures and worker on the machine: what is made up is the process, its start, and the format of values."""

from __future__ import annotations

import contextlib
import gc
import os
import pickle
import signal
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import network
import simulation
from network import duplicate
from simulation import Killed, Machine, SimThread

simulation.install()
network.install()

import threading  # noqa: E402

from flamepy._calls import callbacks, errors, streams  # noqa: E402, F401  (not in the middle of a run)
from flamepy._calls.future import ObjectFuture  # noqa: E402
from flamepy._calls.session import SessionHandle  # noqa: E402
from flamepy._calls.submission import CallSite  # noqa: E402

from flame_host.api import Application, CallOptions, Event, Payload, Resources, SessionSpec  # noqa: E402
from flame_host.engine.loop import Loop  # noqa: E402
from flame_host.engine.output import OutputReader  # noqa: E402
from flame_host.engine.process import LocalProcess  # noqa: E402
from flame_host.engine.session import LocalSession  # noqa: E402
from flame_host.engine.shares import Shares  # noqa: E402
from flame_host.engine.spinning import calling_thread  # noqa: E402
from flame_host.worker.process import WorkerProcess  # noqa: E402
from flame_host.worker.runtime import bootstrap, channel, control, isolation  # noqa: E402

WATCHED = ("/engine/", "/_calls/", "/worker/")
FORMAT = "pickle/1"

codec = types.ModuleType("codec_of_schedules")
codec.dumps = lambda value, buffers=None, reference=None: pickle.dumps(value)  # type: ignore[attr-defined]
codec.loads = lambda data, buffers=(), resolve=None: pickle.loads(data)  # type: ignore[attr-defined]
sys.modules[codec.__name__] = codec
serializer = types.SimpleNamespace(name="pickle", version=1, dumps=codec.dumps, loads=codec.loads, codec=codec.__name__)


class Home:
    """In place of what puts state back between two tasks: the machine's workers share one process, which is nobody's to put back."""

    next_look = 0.0

    def remember(self) -> None:
        pass

    def look(self) -> None:
        pass


isolation.limit = lambda limits: None  # type: ignore[assignment]


class Process:
    """What is killed as one: a worker's threads."""

    def __init__(self, name: int, reaper: Reaper) -> None:
        self.name = name
        self.reaper = reaper
        self.fds: list[int] = []
        self.worker: Any = None
        self.over = False


class Reaper:
    """In place of the guardian: its workers are threads of the machine, running the real ``bootstrap.Worker``."""

    def __init__(self, supervisor: Loop, start: Callable[[Process], None] = lambda _: None) -> None:
        self._supervisor = supervisor
        self._start = start
        self.processes: dict[int, tuple[Process, WorkerProcess]] = {}
        self.spawned = 0
        self.leaves_when_ready = False

    def spawn(self, python: Any, environment: Any, ahead: Any, worker: WorkerProcess, descriptors: list[int]) -> int:
        self.spawned += 1
        process = Process(self.spawned, self)
        process.fds = list(descriptors[:2])
        for fd in process.fds:
            duplicate(fd)
        progress = os.dup(descriptors[2])
        self.processes[process.name] = (process, worker)
        main = SimThread(lambda: self._live(process, progress), f"worker-{process.name}")
        main.process = process
        main.start()
        return process.name

    def _live(self, process: Process, progress: int) -> None:
        self._supervisor.call(lambda: self.processes[process.name][1].started(process.name))
        code = 0
        try:
            self._start(process)
            worker = process.worker = bootstrap.Worker(process.fds[0], process.fds[1], progress, Home())  # type: ignore[arg-type]
            os.close(progress)
            threading.Thread(target=control.listen, args=(worker,), name=f"control-{process.name}").start()
            if worker.start() and not self.leaves_when_ready:
                worker.serve()
        except channel.ChannelClosed:
            pass
        except SystemExit as error:
            code = int(str(error))
        self.end(process, code << 8)

    def end(self, process: Process, status: int) -> None:
        if process.over:
            return
        process.over = True
        Machine.current.kill(process)  # all but this thread, if it is one of them
        self._supervisor.call(lambda: self.processes[process.name][1].ended(status, ""))
        for fd in process.fds:
            os.close(fd)
        running = Machine.current.running
        if running is not None and running.process is process:
            raise Killed

    def kill(self, name: int) -> None:
        if name in self.processes:
            self.end(self.processes[name][0], signal.SIGKILL)


class Launcher:
    def __init__(self, connection: Connection, start: Callable[[Process], None]) -> None:
        self.reaper = Reaper(connection.supervisor, start)
        self._connection = connection
        self._readers: dict[Any, OutputReader] = {}
        self.provisionings = 0
        self.failure: Exception | None = None

    def spawn(self, session: LocalSession, executor: Any) -> LocalProcess:
        if self.failure is not None:
            self.provisionings += 1
            raise self.failure.with_traceback(None)
        process = LocalProcess(self._connection.io, self.reaper, "python", {}, {}, executor.process_ended)
        self._readers[executor] = OutputReader(process, session.session_id, 1, lambda _: None, self._connection.supervisor)
        return process

    def start_order(self, application: Application) -> dict[str, Any]:
        return {
            "variables": {},
            "cwd": "",
            "paths": [],
            "support": "",
            "codecs": {FORMAT: codec.__name__},
            "inside": None,
            "format": FORMAT,
        }

    def python_of(self, application: Application) -> str:
        return "python"

    def release(self, executor: Any) -> str:
        reader = self._readers.pop(executor)
        reader.close()
        return reader.tail()


class Connection:
    """What a `LocalSession` needs of its connection.

    Attributes:
        events: all that was observed; that a session has stalled is a finding.
    """

    def __init__(self, cores: int = 2, start: Callable[[Process], None] = lambda _: None) -> None:
        self.cores = cores
        self.services = self
        self.events: list[Event] = []
        self.io = Loop("io")
        self.supervisor = Loop("supervisor")
        self.launcher = Launcher(self, start)
        self.objects: Any = None
        self.shares = Shares(Resources(cpu=cores))
        self.sessions: list[LocalSession] = []
        Machine.current.describe = lambda: "\n".join(session.describe() for session in self.sessions)

    def observe(self, event: Event) -> None:
        self.events.append(event)

    def is_own_thread(self) -> bool:
        return self.io.is_current() or self.supervisor.is_current()

    def service(self, target: Any, **spec: Any) -> Service:
        payload = Payload(FORMAT, codec.dumps(target))
        session = LocalSession(SessionSpec("app", payload, f"session-{len(self.sessions)}", **spec), Application("app"), self)  # type: ignore[arg-type]
        self.sessions.append(session)
        return Service(self, session)

    def close(self) -> None:
        for session in self.sessions:
            session.close(wait=False)
        self.supervisor.stop()
        self.io.stop()
        stalled = [event.detail for event in self.events if event.kind == "session.stalled"]
        assert not stalled, stalled[0]


class Service:
    """Calls of a session, by the SDK's own call site."""

    def __init__(self, connection: Connection, session: LocalSession) -> None:
        self.session = session
        self.reaper = connection.launcher.reaper
        self._site = CallSite(
            SessionHandle(connection, session, serializer, application="app", label="task"),  # type: ignore[arg-type]
            ordered=session.spec.stateful,
        )

    def __call__(self, *args: Any) -> ObjectFuture[Any]:
        return self._site.call("", args, {})

    def with_options(self, options: CallOptions, *args: Any) -> ObjectFuture[Any]:
        return self._site.call("", args, {}, options)

    def kill_a_worker(self) -> None:
        for process, _ in list(self.reaper.processes.values()):
            if not process.over:
                self.reaper.end(process, signal.SIGKILL)
                return


def _kill(pid: int, number: int) -> None:
    """A worker kills its own process group when its host is gone."""
    running = Machine.current.running
    if running is not None and running.process is not None:
        running.process.reaper.end(running.process, signal.SIGKILL)


def _interrupt(ident: int, number: int) -> None:
    """`signal.pthread_kill` to the thread that runs a task: its handler is called where that thread stands or waits."""
    for thread in Machine.current.threads:
        if thread.ident == ident and not thread.ended:
            thread.interrupts.append(_handler_of(thread))


def _handler_of(thread: SimThread) -> Callable[[], object]:
    return lambda: thread.process.worker.task.check()


def _tell(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if kind is not Killed:
        Machine.current.problems.append("".join(traceback.format_exception(kind, error, trace)))


sys.excepthook = _tell
os.kill = _kill  # type: ignore[assignment]
signal.pthread_kill = _interrupt  # type: ignore[assignment]


@contextlib.contextmanager
def cleaned() -> Iterator[None]:
    """What a worker does to its process it does to this one: put it back."""
    kept = (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__, list(sys.path), list(sys.argv), dict(vars(signal)))
    collected = gc.isenabled()
    gc.disable()  # when it runs depends on what ran before
    try:
        yield
    finally:
        _put_back(kept)
        gc.collect()
        if collected:
            gc.enable()


def _put_back(kept: Any) -> None:
    sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__ = kept[:4]  # type: ignore[misc]
    sys.path[:], sys.argv[:] = kept[4], kept[5]
    vars(signal).update(kept[6])
    callbacks._reset()
    calling_thread.__init__()  # type: ignore[misc]
    network.close_all()
