"""One executor: a worker process that serves one session, from its start to its end.

Its states, in this order, some passed over: ``STARTING`` (a thread of its own provisions and starts the process), ``READY``,
``ENDING`` (told to stop or to die), ``GONE``. A state is changed under ``_life``, and each change is followed by telling the session.
"""

from __future__ import annotations

import enum
import json
import threading
import time
from typing import TYPE_CHECKING, Any

from flame_host.api import Task, WorkerStartError
from flame_host.engine.link import Link
from flame_host.engine.loop import weakly
from flame_host.engine.outbox import Sending
from flame_host.engine.shares import Share
from flame_host.worker.process import WorkerExit
from flame_host.worker.runtime.channel import CANCEL, ERROR, HEADER, READY, RECALL, START, STOP, credit, encode

if TYPE_CHECKING:
    from flame_host.engine.process import Process
    from flame_host.engine.session import LocalSession

_DEATH_NOTICE = 2.0  # seconds to wait for the exit status of a worker whose socket has closed
_RETIREMENT = 0.005  # seconds between looks at whether the last driver has left


class Life(enum.IntEnum):
    STARTING = 0
    READY = 1
    ENDING = 2
    GONE = 3


class Executor(Link):
    """A link and the process at its other end.

    Attributes:
        kill_reason: why it is being killed, if it is. kill_task: the task to blame, None for whichever runs.
        share: what of the machine it has, where its service says what it needs. gone: set when it is, and the session has been told.
    """

    def __init__(self, session: LocalSession, number: int, share: Share | None = None) -> None:
        super().__init__(session, session.io)
        self.session = session
        self.number = number
        self.share = share
        self.life = Life.STARTING
        self.kill_reason: Exception | None = None
        self.kill_task: Task | None = None
        self.process: Process | None = None
        self.gone = threading.Event()
        self._life = threading.RLock()  # a finalizer may kill it while this thread does something to it
        self._control: Sending | None = None
        self._credit = (0, 0)
        self._crediting = threading.RLock()
        self._problem: BaseException | bytes | None = None
        self._abandoned: BaseException | None = None
        self._channel_over = False
        self._started = False
        self.was_told_to_end = self.has_begun = False
        threading.Thread(target=self._launch, name=f"flame-start-{session.session_id}-{number}", daemon=True).start()

    @property
    def ready(self) -> bool:
        return self.life is Life.READY

    @property
    def starting(self) -> bool:
        return self.life is Life.STARTING

    def works(self) -> bool:
        """Whether its worker is in a task, or on its way out: either goes on by itself."""
        return self.life is Life.ENDING or (self.process is not None and not self.process.at_rest)

    @property
    def idle(self) -> bool:
        return self.ready and not self.inflight and self.window > 0

    @property
    def latency(self) -> float:
        return self.process.latency if self.process else 0.0

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    # ------------------------------------------------------------------------------------------------ start

    def _launch(self) -> None:
        """In a thread of its own, for provisioning takes its time; ends when START is on its way."""
        try:
            process = self.session.spawn(self)
        except BaseException as error:
            with self._life:
                self.life = Life.GONE
            self.session.executor_failed(self, error, WorkerExit("was never started"))
            self.gone.set()
            return
        try:
            with self._life:
                self.process = process
                self._control = process.join(self)
                if self.life is Life.ENDING:  # told to end before there was anything to end
                    process.kill()
                    return
            order, common = self.session.start_order(self)
            self.send_parts(*encode(START, 0, json.dumps(order).encode(), (), (common,)))
        except BaseException as error:
            self._problem = error
            process.kill()
            return
        self.session.later(self.session.start_timeout, weakly(self._start_is_overdue))

    def _start_is_overdue(self) -> None:
        if self.life is Life.STARTING:
            self._problem = WorkerStartError(f"worker {self.pid} did not get ready within {self.session.start_timeout:g} s")
            self.kill()

    def _handle_other(self, frame: Any) -> int:
        if self.life is not Life.STARTING:
            return super()._handle_other(frame)
        if frame[0] == READY:
            with self._life:
                if self.life is not Life.STARTING:
                    return 0
                self.life = Life.READY
                self._started = True
                self.since = self.idle_since = time.monotonic()
                with self._sending:
                    self.window = 1
            self.session.executor_ready(self)
            self.pump()
        elif frame[0] == ERROR:
            self._problem = bytes(frame[4])  # it ends by itself
        return 0

    # ------------------------------------------------------------------------------------------------ end

    def stop(self) -> None:
        """Ask the worker to end after what it is doing."""
        with self._life:
            if self.life is Life.STARTING:
                self.kill()
                return
            self._end()
            self._tell(HEADER.pack(STOP, 0, 0, 0, 0))

    def kill(self, reason: Exception | None = None, task: Task | None = None) -> None:
        """End it now; its running task, if it is the one given, fails with the reason, or is treated as lost without one."""
        with self._life:
            if self.kill_reason is None:
                self.kill_reason, self.kill_task = reason, task
            self._end()
            if self.process is not None:
                self.process.kill()

    def _end(self) -> None:
        self.was_told_to_end = True
        if self.life < Life.ENDING:
            self.life = Life.ENDING
        # By the loop: this may be a finalizer, in a thread that is sending. What is sent until then comes back when the worker is gone.
        self._io.call(self.close_window)

    def _abandon(self, error: BaseException) -> None:
        self._abandoned = error
        self.kill()

    def channel_closed(self) -> None:
        self._channel_over = True
        self.session.call(self._try_to_finish)
        if self.process is not None and not self.process.gone.is_set():
            self.session.later(_DEATH_NOTICE, self.process.kill)
            self.session.later(2 * _DEATH_NOTICE, self._finish_without_status)

    def process_ended(self) -> None:
        """The reaper knows how it ended; what it has said last may still have to be read."""
        self.session.call(self._try_to_finish)

    def _finish_without_status(self) -> None:
        if self.process is not None and self.life is not Life.GONE:
            self.process.gone.set()
            self._try_to_finish()

    def _try_to_finish(self) -> None:
        """In the supervisor's thread. Both sides have to be known: that nothing more will come, and how it ended."""
        process = self.process
        if process is None or not self._channel_over or not process.gone.is_set() or self.life is Life.GONE:
            return
        if not self.retire():  # a driver is about to leave
            self.session.later(_RETIREMENT, self._try_to_finish)
            return
        with self._life:
            self.life = Life.GONE
        self.close_window()
        self._finish(process)
        self.gone.set()

    def _finish(self, process: Process) -> None:
        """The worker is gone: say what happened to its tasks."""
        how = process.how_it_ended()
        if self._abandoned is not None:
            why = (
                "Ctrl-C came" if isinstance(self._abandoned, KeyboardInterrupt) else f"{type(self._abandoned).__name__}: {self._abandoned}"
            )
            how = WorkerExit(f"had to be ended ({why} while bytes were under way to or from it)")
        self.has_begun = process.begun > 0
        running = process.begun - self.replied - 1  # index of the task it was in; -1 when it was in none
        tasks = self.unanswered()
        if process.deaf and not self.session.serial and not self.session.spec.stateful:
            # One of the tasks since the last write has closed the worker's descriptors. One at a time, we shall see which.
            self.session.serial = True
            running = -1
        said = self.session.release_worker(self)
        if self._started:
            self.session.executor_lost(self, tasks, running, how)
        else:
            self.session.executor_failed(self, self._problem or self._stillborn(process, how, said), how)

    def _stillborn(self, process: Process, how: WorkerExit, said: str) -> WorkerStartError:
        return WorkerStartError(
            f"worker {process.pid or ''} {how.words} before it was ready" + (f"; it printed:\n{said}" if said else ""),
            hint=f"try  {self.session.python} -I -c 'pass'  to see whether the interpreter starts",
        )

    # ------------------------------------------------------------------------------------------------ control

    def recall(self) -> None:
        """Have the tasks behind the running one handed back, so that others can take them."""
        if self.begin_recall():
            self._tell(HEADER.pack(RECALL, 0, 0, 0, 0))

    def interrupt(self, task: Task) -> None:
        self._tell(HEADER.pack(CANCEL, 0, 0, task.number, 0))

    def grant(self, task: Task, taken: int) -> None:
        with self._crediting:  # consumers may come in any order, and late: what was said once is not taken back
            if self.running is task:
                number, known = self._credit
                self._credit = (task.number, max(taken, known) if number == task.number else taken)
                self._tell(credit(*self._credit))

    def remind(self) -> None:
        """Say again how much of the running stream has been taken; it costs nothing, and nothing can have got lost then."""
        with self._crediting:
            task = self.running
            if task is not None and task.number == self._credit[0]:
                self._tell(credit(*self._credit))

    def _tell(self, frame: bytes) -> None:
        if self._control is not None:
            self._control.send(frame)

    def describe(self) -> str:
        """Its state, for somebody who wonders why nothing happens."""
        process = self.process
        now = time.monotonic()
        flags = [
            name
            for name, true in (
                ("recalling", self.recalling),
                ("driven", bool(self._reader)),
                ("paused", self._paused),
                ("unhandled", bool(self._unhandled)),
                ("unsent", bool(self._control and (self._outbox.line or self._control.line))),
                ("at rest", process is not None and process.at_rest),
                ("dead", process is not None and process.gone.is_set()),
            )
            if true
        ]
        return (
            f"executor {self.number} (pid {self.pid}) {self.life.name.lower()}: window {self.window}, in flight {len(self.inflight)}, "
            f"oldest for {now - self.since:.1f} s, begun {process.begun if process else 0}, replied {self.replied}; "
            + (", ".join(flags) or "nothing special")
        )
