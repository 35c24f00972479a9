"""One executor: a worker process that serves one session, and the thread that reads its answers.

This is the task path. A frame costs one append here, one write and one read for many, and no lock, log or hook: the budget of a
whole call is a few microseconds. Answers come in the order of the calls, so a deque is all the book-keeping there is.
"""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from flame_host.api import FlameError, Task, WorkerStartError
from flame_host.worker.channel import (
    CANCEL,
    CREDIT,
    ERROR,
    HEADER,
    ITEM,
    READY,
    RECALL,
    RESULT,
    RETURNED,
    START,
    STOP,
    ChannelClosed,
    MemorySegment,
    Receiver,
    decode,
    descriptor_messages,
    encode,
    view_of,
)
from flame_host.worker.process import WorkerProcess

if TYPE_CHECKING:
    from flame_host.engine.session import LocalSession

_AHEAD = 0.005
"""Seconds of work to send ahead of a worker's answers: enough to keep it busy while this process waits for its own lock."""
_MOST_AHEAD = 4096
_DEATH_NOTICE = 2.0  # seconds to wait for the exit status of a worker whose socket has closed


class Executor:
    """Starts its worker from its own thread; that thread then reads answers until the worker ends.

    Attributes:
        inflight: tasks sent and not answered, oldest first. since: when the oldest got its turn.
        window: how many may be in flight; 0 while the worker is not ready, is asked to hand back, or is gone.
    """

    def __init__(self, session: LocalSession, number: int) -> None:
        self.session = session
        self.number = number
        self.inflight: deque[Task] = deque()
        self.window = 0
        self.since = time.monotonic()
        self.idle_since = self.since
        self.succeeded = self.failed = self.replied = 0
        self.recalling = False
        self.doomed: FlameError | None = None
        self.process: WorkerProcess | None = None
        self._mean = 0.0
        self._sending = threading.Lock()
        self._control_sending = threading.Lock()
        self._thread = threading.Thread(target=self._live, name=f"flame-executor-{session.session_id}-{number}", daemon=True)
        self._thread.start()

    # ------------------------------------------------------------------------------------------------ life

    def _live(self) -> None:
        try:
            self.process = self.session.spawn(self)
            self._receiver = Receiver(self.process.data)
            report = self._start()
        except BaseException as error:
            self._discard()
            self.session.executor_failed(self, error)
            return
        if report is not None:
            self._discard()
            self.session.executor_failed(self, report)
            return
        self.since = self.idle_since = time.monotonic()
        self.window = 1
        self.session.executor_ready(self)
        try:
            self._read()
        except ChannelClosed:
            pass
        self._end()

    def _start(self) -> bytes | None:
        """Send START, wait for the answer; an error report of the user's code, or None when it is ready."""
        process = self._process
        order, common = self.session.start_order(self)
        frame, segments = encode(START, 0, json.dumps(order).encode(), (), (common,))
        self._send_parts(frame, segments)
        process.data.settimeout(self.session.start_timeout)
        try:
            frames: list[Any] = []
            while not frames:
                frames = self._receiver.receive()
        except ChannelClosed:
            process.gone.wait(_DEATH_NOTICE)
            time.sleep(0.02)  # its last words may still be on their way to the supervisor
            how = process.how_it_ended()[0]
            said = self.session.last_words(self)
            raise WorkerStartError(
                f"worker {process.pid or ''} {how} before it was ready" + (f"; it printed:\n{said}" if said else ""),
                hint=f"try  {self.session.python} -I -c 'pass'  to see whether the interpreter starts",
            ) from None
        except TimeoutError:
            raise WorkerStartError(f"worker {process.pid} did not get ready within {self.session.start_timeout:g} s") from None
        process.data.settimeout(None)
        kind = frames[0][0]
        if kind == READY:
            return None
        if kind == ERROR:
            return bytes(frames[0][4])
        raise WorkerStartError(f"worker {process.pid} answered START with a frame of kind {kind}")

    @property
    def _process(self) -> WorkerProcess:
        assert self.process is not None
        return self.process

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    @property
    def running(self) -> Task | None:
        """The task that has the worker; it may end at any moment."""
        try:
            return self.inflight[0]
        except IndexError:
            return None

    @property
    def idle(self) -> bool:
        return not self.inflight and self.window > 0

    def _end(self) -> None:
        """The worker is gone: say what happened to its tasks."""
        self.window = 0
        process = self._process
        if not process.gone.wait(_DEATH_NOTICE):
            process.kill()
            process.gone.wait(_DEATH_NOTICE)
        with self._sending:
            tasks = list(self.inflight)
            self.inflight.clear()
        running = process.begun - self.replied - 1  # index of the task it was in; -1 when it was in none
        how = process.how_it_ended()
        self._discard()
        self.session.executor_lost(self, tasks, running, how)

    def _discard(self) -> None:
        if self.process is not None:
            self.session.let_go(self)

    def stop(self) -> None:
        """Ask the worker to end after what it is doing."""
        self.window = 0
        self.control(STOP, 0)

    def kill(self, reason: FlameError | None = None) -> None:
        """End it now; its running task fails with the reason, or is treated as lost without one."""
        self.doomed = self.doomed or reason
        self.window = 0
        if self.process is not None:
            self.process.kill()

    def join(self, timeout: float) -> bool:
        if threading.current_thread() is not self._thread:
            self._thread.join(timeout)
        return not self._thread.is_alive()

    # ------------------------------------------------------------------------------------------------ receiving

    def _read(self) -> None:
        receive, popleft, clock, account = self._receiver.receive, self.inflight.popleft, time.monotonic, self._account
        while True:
            done = 0
            for frame in receive():
                if frame[0] == RESULT:
                    task = popleft()
                    done += 1
                    if frame[1]:
                        data, buffers, _ = decode(frame)
                        task.succeed(view_of(data), buffers)
                    else:
                        task.succeed(frame[4], ())
                else:
                    done += self._take(frame)
            if done:
                account(done, clock())
            self.pump()

    def _account(self, done: int, now: float) -> None:
        self.replied += done
        self.succeeded += done
        each = (now - self.since) / done
        self.since = self.idle_since = now
        self._mean = each if not self._mean else 0.75 * self._mean + 0.25 * each
        if not self.recalling and self.window:
            self.window = 1 if self.session.solo else max(1, min(_MOST_AHEAD, int(_AHEAD / self._mean)))

    def _take(self, frame: Any) -> int:
        """A frame that is no plain result; returns how many tasks it ends."""
        kind = frame[0]
        if kind == ERROR:
            self.session.task_failed(self.inflight.popleft(), frame[4])
            self.failed += 1
            self.succeeded -= 1
            return 1
        if kind == ITEM:
            data, buffers, _ = decode(frame)
            self.since = time.monotonic()
            self.inflight[0].stream(view_of(data), buffers)
        elif kind == RETURNED:
            with self._sending:
                returned = [self.inflight.pop() for _ in range(frame[3])]
                self.recalling = False
                self.window = 1
            self.session.give_back(reversed(returned))
        return 0

    # ------------------------------------------------------------------------------------------------ sending

    def pump(self) -> None:
        """Send what fits. Any thread; whoever finds another at it leaves it to that one, who looks again before going."""
        queue, inflight, lock = self.session.queue, self.inflight, self._sending
        while queue and len(inflight) < self.window:
            if not lock.acquire(False):
                return
            try:
                self._send_some()
            finally:
                lock.release()

    def _send_some(self) -> None:
        queue, inflight = self.session.queue, self.inflight
        room = self.window - len(inflight)
        if not inflight:
            self.since = time.monotonic()
        frames: list[bytes] = []
        while room > 0:
            try:
                task = queue.popleft()
            except IndexError:
                break
            if not task.begin():
                self.session.cancelled += 1
                continue
            room -= 1
            frame = task.frame
            inflight.append(task)
            if type(frame) is bytes:
                frames.append(frame)
                continue
            if frames:
                self._send(b"".join(frames))
                frames = []
            self._send_parts(*frame)
        if frames:
            self._send(b"".join(frames) if len(frames) > 1 else frames[0])

    def _send_parts(self, frame: bytes, segments: Sequence[MemorySegment]) -> None:
        for message, descriptors in descriptor_messages(segments):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            self._retry(lambda message=message, rights=rights: self._process.data.sendmsg([message], rights, socket.MSG_DONTWAIT))
        self._send(frame)

    def _send(self, data: bytes) -> None:
        try:
            sent = self._process.data.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is gone; the reader will say so
            return
        if sent < len(data):
            rest = memoryview(data)[sent:]
            while rest:
                rest = rest[self._retry(lambda rest=rest: self._process.data.send(rest, socket.MSG_DONTWAIT)) :]

    def _retry(self, send: Any) -> int:
        """Send without ever deadlocking with a worker that is itself waiting for us to read."""
        while True:
            try:
                return int(send())
            except BlockingIOError:
                self._wait_until_writable()
            except OSError:
                return 1 << 40  # it is gone; the reader will say so

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        poll.register(self._process.data, select.POLLOUT)
        if threading.current_thread() is not self._thread or not self.window:
            poll.poll(100)
            return
        poll.modify(self._process.data, select.POLLOUT | select.POLLIN)
        for _, event in poll.poll():
            if event & select.POLLIN and not event & select.POLLOUT:
                self._read_some()

    def _read_some(self) -> None:
        """Take answers in the middle of sending; only results can be ended here, and nothing new is sent."""
        for frame in self._receiver.receive():
            if frame[0] == RESULT:
                data, buffers, _ = decode(frame)
                self.inflight.popleft().succeed(view_of(data), buffers)
                self._account(1, time.monotonic())
            elif self._take(frame):  # never RETURNED: a recall waits for the sender's lock
                self._account(1, time.monotonic())

    def control(self, kind: int, number: int, extra: int = 0) -> None:
        process = self.process
        if process is None:
            return
        with self._control_sending:
            try:
                process.control.sendall(HEADER.pack(kind, 0, extra, number, 0))
            except OSError:
                pass

    def recall(self) -> None:
        """Have the tasks behind the running one handed back, so that others can take them."""
        with self._sending:
            if self.recalling or not self.window:
                return
            self.recalling = True
            self.window = 0
        self.control(RECALL, 0)

    def interrupt(self, task: Task) -> None:
        self.control(CANCEL, task.number)

    def grant(self, task: Task, count: int) -> None:
        self.control(CREDIT, task.number, count)
