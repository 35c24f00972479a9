"""One executor: a worker process that serves one session, from its start to its end."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from flame_host.api import Task, WorkerStartError
from flame_host.engine.link import Link
from flame_host.worker.process import WorkerProcess
from flame_host.worker.runtime.channel import CANCEL, CREDIT, ERROR, HEADER, READY, RECALL, START, STOP, ChannelClosed, encode

if TYPE_CHECKING:
    from flame_host.engine.session import LocalSession

_DEATH_NOTICE = 2.0  # seconds to wait for the exit status of a worker whose socket has closed


class Executor(Link):
    """Starts its worker from a thread of its own; that thread then reads answers until the worker ends.

    Attributes:
        doomed: why it is being killed, if it is. doomed_task: the task to blame, None for whichever runs.
    """

    def __init__(self, session: LocalSession, number: int) -> None:
        super().__init__(session)
        self.session = session
        self.number = number
        self.doomed: Exception | None = None
        self.doomed_task: Task | None = None
        self.process: WorkerProcess | None = None
        self._control_sending = threading.Lock()
        self._thread = threading.Thread(target=self._live, name=f"flame-executor-{session.session_id}-{number}", daemon=True)
        self._thread.start()

    def _live(self) -> None:
        try:
            process = self.process = self.session.spawn(self)
            self.attach(process.data)
            problem: BaseException | bytes | None = self._start(process)
        except BaseException as error:
            problem = error
        if problem is not None:
            self._discard()
            self.session.executor_failed(self, problem)
            return
        self.since = self.idle_since = time.monotonic()
        self.window = 1
        self.session.executor_ready(self)
        with contextlib.suppress(ChannelClosed):
            self.read_answers()
        self._end(process)

    def _start(self, process: WorkerProcess) -> bytes | None:
        """Send START, wait for the answer; an error report of the user's code, or None when it is ready."""
        order, common = self.session.start_order(self)
        self.send_parts(*encode(START, 0, json.dumps(order).encode(), (), (common,)))
        process.data.settimeout(self.session.start_timeout)
        frames: list[Any] = []
        try:
            while not frames:
                frames = self._receiver.receive()
        except ChannelClosed:
            raise self._stillborn(process) from None
        except TimeoutError:
            raise WorkerStartError(f"worker {process.pid} did not get ready within {self.session.start_timeout:g} s") from None
        process.data.settimeout(None)
        kind = frames[0][0]
        if kind == READY:
            return None
        if kind == ERROR:
            return bytes(frames[0][4])
        raise WorkerStartError(f"worker {process.pid} answered START with a frame of kind {kind}")

    def _stillborn(self, process: WorkerProcess) -> WorkerStartError:
        process.gone.wait(_DEATH_NOTICE)
        time.sleep(0.02)  # its last words may still be on their way to the supervisor
        said = self.session.last_words(self)
        return WorkerStartError(
            f"worker {process.pid or ''} {process.how_it_ended()[0]} before it was ready" + (f"; it printed:\n{said}" if said else ""),
            hint=f"try  {self.session.python} -I -c 'pass'  to see whether the interpreter starts",
        )

    def _end(self, process: WorkerProcess) -> None:
        """The worker is gone: say what happened to its tasks."""
        self.window = 0
        if not process.gone.wait(_DEATH_NOTICE):
            process.kill()
            process.gone.wait(_DEATH_NOTICE)
        with self._sending:
            tasks = list(self.inflight)
            self.inflight.clear()
        running = process.begun - self.replied - 1  # index of the task it was in; -1 when it was in none
        how = process.how_it_ended()
        if process.deaf and not self.session.solo and not self.session.spec.stateful:
            # One of the tasks since the last write has closed the worker's descriptors. One at a time, we shall see which.
            self.session.solo = True
            running = -1
        self._discard()
        self.session.executor_lost(self, tasks, running, how)

    def _discard(self) -> None:
        if self.process is not None:
            self.session.let_go(self)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def stop(self) -> None:
        """Ask the worker to end after what it is doing."""
        self.window = 0
        self._control(STOP, 0)
        self.unpark()

    def kill(self, reason: Exception | None = None, task: Task | None = None) -> None:
        """End it now; its running task, if it is the one given, fails with the reason, or is treated as lost without one."""
        if self.doomed is None:
            self.doomed, self.doomed_task = reason, task
        self.window = 0
        if self.process is not None:
            self.process.kill()
        self.unpark()

    def join(self, timeout: float) -> bool:
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    def recall(self) -> None:
        """Have the tasks behind the running one handed back, so that others can take them."""
        if self.begin_recall():
            self._control(RECALL, 0)

    def interrupt(self, task: Task) -> None:
        self._control(CANCEL, task.number)

    def grant(self, task: Task, count: int) -> None:
        self._control(CREDIT, task.number, count)

    def _control(self, kind: int, number: int, extra: int = 0) -> None:
        if self.process is None:
            return
        with self._control_sending, contextlib.suppress(OSError):
            self.process.control.sendall(HEADER.pack(kind, 0, extra, number, 0))
