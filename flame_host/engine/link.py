"""The task path between a session's queue and one worker: frames out, answers in.

A frame costs one append, and one write and one read for many, and no lock, log or hook: the budget of a whole call is a few
microseconds. Answers come in the order of the calls, so a deque is all the book-keeping there is.

Answers are read by the executor's own thread, which costs a caller that waits for every single call a third hop between threads.
When calls come that way, the thread *parks* and the waiting caller reads for itself (`assist`).
"""

from __future__ import annotations

import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Protocol

from flame_host.api import Task
from flame_host.worker.runtime.channel import (
    ERROR,
    ITEM,
    QUICK,
    RESULT,
    RETURNED,
    STATE,
    ChannelClosed,
    Receiver,
    decode,
    descriptor_messages,
    view_of,
)
from flame_host.worker.runtime.memory import MemorySegment

_AHEAD = 0.005
"""Seconds of work to send ahead of a worker's answers: enough to keep it busy while this process waits for its own lock."""
_MOST_AHEAD = 4096
_CALLS_BEFORE_PARKING = 16

_CROWDED = 0.01
"""Seconds after which a thread that has not been followed by another counts as the only one."""


class Caller:
    """Tells whether one thread of this process alone waits for its calls: that one may wait awake.

    Several would take each other's turn at the interpreter, and the workers' cores.
    """

    def __init__(self) -> None:
        self.crowded = True
        self._thread = 0
        self._until = 0.0

    def is_alone(self) -> bool:
        """Ask from the thread that is going to wait."""
        me = threading.get_ident()
        if me != self._thread:
            self._thread = me
            self._until = time.monotonic() + _CROWDED
            self.crowded = True
        elif self.crowded:
            self.crowded = time.monotonic() < self._until
        return not self.crowded


caller = Caller()


class TaskSource(Protocol):
    """What a link needs of its session."""

    queue: deque[Task]
    solo: bool
    cancelled: int

    def give_back(self, tasks: list[Task]) -> None: ...
    def task_failed(self, task: Task, report: bytes) -> None: ...
    def saved(self, number: int, state: tuple[Any, Any, Any]) -> None:
        """The object as it is after that call, whose answer follows."""
        ...

    def look_after(self) -> None:
        """Be ticked from now on."""
        ...


class Link:
    """One worker's share of the tasks.

    Attributes:
        inflight: tasks sent and not answered, oldest first. since: when the oldest got its turn.
        window: how many may be in flight; 0 while the worker is not ready, is asked to hand back, or is gone.
        replied: answers so far. parked: nobody reads unless a waiting caller does.
    """

    def __init__(self, source: TaskSource) -> None:
        self.inflight: deque[Task] = deque()
        self.window = 0
        self.since = self.idle_since = time.monotonic()
        self.replied = self.succeeded = self.failed = 0
        self.recalling = False
        self.parked = False
        self._source = source
        self._mean = 0.0
        self._sending = threading.Lock()
        self._reading = threading.Lock()
        self._reader = 0
        self._unparked = threading.Event()
        self._waited_calls = 0
        self._unhandled: deque[Any] = deque()

    def attach(self, sock: socket.socket) -> None:
        self._sock = sock
        self._receiver = Receiver(sock)

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

    # ------------------------------------------------------------------------------------------------ answers

    def read_answers(self) -> None:
        """Read until the worker is gone; raises `ChannelClosed` then."""
        while True:
            with self._reading:
                self._reader = threading.get_ident()
                self._handle(())  # what an interrupted caller has left
                while not self._may_park():
                    self._handle(self._receiver.receive())
                self._reader = 0
            self._unparked.wait()
            self._unparked.clear()

    def _may_park(self) -> bool:
        if self._waited_calls < _CALLS_BEFORE_PARKING or self.inflight or not self.window:
            return False
        self.parked = True
        self._source.look_after()  # should the next caller not wait, a tick will notice
        return True

    def unpark(self) -> None:
        if self.parked:
            self.parked = False
            self._waited_calls = 0
            self._unparked.set()

    def assist(self, task: Task, timeout: float | None) -> None:
        """Read for a caller that waits for this task. May return early: the caller goes on waiting in its own way."""
        self._waited_calls += 1
        if not self.parked or not self._reading.acquire(False):
            return
        try:
            alone = caller.is_alone()
            self._reader = threading.get_ident()
            deadline = None if timeout is None else time.monotonic() + timeout
            while not task.done():
                frames = self._receiver.spin() if alone and self._mean < QUICK else None
                if frames is None:
                    if deadline is not None and not self._readable(deadline - time.monotonic()):
                        break
                    frames = self._receiver.receive()
                self._handle(frames)
        except ChannelClosed:
            self.unpark()
        finally:
            self._reader = 0  # were it left, this thread would take itself for the reader when it sends
            self._reading.release()
            if self.inflight or self._unhandled:
                self.unpark()

    def _readable(self, seconds: float) -> bool:
        return bool(select.select([self._sock], [], [], max(0.0, seconds))[0])

    def _handle(self, frames: Sequence[Any]) -> None:
        """Give answers to their tasks.

        A frame leaves ``_unhandled`` after its task has its answer, and is known by its number: should a signal's exception come in
        between, whoever reads next goes on where this stopped.
        """
        unhandled, inflight = self._unhandled, self.inflight
        unhandled.extend(frames)
        done = 0
        while unhandled:
            frame = unhandled[0]
            if frame[0] != RESULT:
                done += self._handle_other(frame)
            elif inflight and inflight[0].number == frame[3]:
                task = inflight[0]
                if frame[1]:
                    data, buffers, _ = decode(frame)
                    task.succeed(view_of(data), buffers)
                else:
                    task.succeed(frame[4], ())
                task.frame = None  # whoever keeps the future does not keep its arguments
                self.replied += 1
                done += 1
                inflight.popleft()
            unhandled.popleft()
        if done:
            self._account(done, time.monotonic())
        if self._source.queue:
            self.pump()

    def _handle_other(self, frame: Any) -> int:
        """A frame that is no result; returns how many tasks it ends."""
        kind = frame[0]
        if kind == ERROR:
            if not self.inflight or self.inflight[0].number != frame[3]:
                return 0
            self._source.task_failed(self.inflight[0], frame[4])
            self.inflight.popleft().frame = None
            self.replied += 1
            self.failed += 1
            self.succeeded -= 1
            return 1
        if kind == ITEM:
            data, buffers, _ = decode(frame)
            self.since = time.monotonic()
            self.inflight[0].stream(view_of(data), buffers)
        elif kind == STATE:
            self._source.saved(frame[3], decode(frame))
        elif kind == RETURNED:
            with self._sending:
                returned = [self.inflight.pop() for _ in range(frame[3])]
                self.recalling = False
                self.window = 1
            self._source.give_back(returned[::-1])
        return 0

    def _account(self, done: int, now: float) -> None:
        self.succeeded += done
        each = (now - self.since) / done
        self.since = self.idle_since = now
        self._mean = each if not self._mean else 0.75 * self._mean + 0.25 * each
        if not self.recalling and self.window:
            self.window = 1 if self._source.solo else max(1, min(_MOST_AHEAD, int(_AHEAD / self._mean)))

    # ------------------------------------------------------------------------------------------------ calls

    def pump(self) -> None:
        """Send what fits. Any thread; whoever finds another at it leaves it to that one, who looks again before going."""
        queue, inflight, lock = self._source.queue, self.inflight, self._sending
        while queue and len(inflight) < self.window:
            if not lock.acquire(False):
                return
            try:
                self._send_some()
            finally:
                lock.release()

    def _send_some(self) -> None:
        queue, inflight = self._source.queue, self.inflight
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
                self._source.cancelled += 1
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
            self.send_parts(*frame)
        if frames:
            self._send(b"".join(frames) if len(frames) > 1 else frames[0])

    def send_parts(self, frame: bytes, segments: Sequence[MemorySegment]) -> None:
        for message, descriptors in descriptor_messages(segments):
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors)]
            self._insist(partial(self._sock.sendmsg, [message], rights, socket.MSG_DONTWAIT))
        self._send(frame)

    def _send(self, data: bytes) -> None:
        try:
            sent = self._sock.send(data, socket.MSG_DONTWAIT)
        except BlockingIOError:
            sent = 0
        except OSError:  # it is gone; the reader will say so
            return
        rest = memoryview(data)[sent:]
        while rest:
            rest = rest[self._insist(partial(self._sock.send, rest, socket.MSG_DONTWAIT)) :]

    def _insist(self, send: Callable[[], int]) -> int:
        """Send without ever deadlocking with a worker that is itself waiting for us to read."""
        while True:
            try:
                return send()
            except BlockingIOError:
                self._wait_until_writable()
            except OSError:
                return 1 << 40

    def _wait_until_writable(self) -> None:
        poll = select.poll()
        if self._reader != threading.get_ident():  # somebody else reads meanwhile
            poll.register(self._sock, select.POLLOUT)
            poll.poll(100)
            return
        poll.register(self._sock, select.POLLOUT | select.POLLIN)
        for _, event in poll.poll():
            if event & select.POLLIN and not event & select.POLLOUT:
                self._handle(self._receiver.receive())  # pumps nothing: the sender's lock is ours

    def begin_recall(self) -> bool:
        """Stop sending; the tasks behind the running one are about to be asked back."""
        with self._sending:
            if self.recalling or not self.window:
                return False
            self.recalling = True
            self.window = 0
            return True
