"""The task path between a session's queue and one worker: frames out, answers in.

A frame costs one append, and one write and one read for many, and no log or hook: the budget of a whole call is a few microseconds.
Answers come in the order of the calls, so a deque is all the book-keeping there is.

Who reads. The io loop does, unless a caller that waits for the running task *drives*: reads for itself, and saves two hops between
threads. Reading is a role, held by one at a time (``_reader``). Whoever drives has the loop pass over the socket meanwhile, and takes
that back when it leaves; the loop's own reading does not wait. So whatever arrives is read: by the driver while there is one, by the
loop otherwise. Nothing else (recalling, windows, who waits for what) has a say in it.

Who sends. Anybody, under ``_sending``, which is held for moments and never while waiting: see `Outbox`.

The states, their owners and what always holds are in ``docs/explanation/task-path.md``; ``tests/proofs`` explores them.
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

from flame_host.api import Task
from flame_host.engine.loop import Loop
from flame_host.engine.outbox import Sending
from flame_host.engine.spinning import calling_thread
from flame_host.worker.runtime.channel import (
    ERROR,
    ITEM,
    OPEN_STREAM,
    QUICK,
    RESULT,
    RETURNED,
    STATE,
    ChannelClosed,
    Receiver,
    decode,
    descriptor_messages,
    numbers_of,
    view_of,
)

_AHEAD = 0.005
"""Seconds of work to send ahead of a worker's answers: enough to keep it busy while this process waits for its own lock."""
_MOST_AHEAD = 4096
_PATIENCE = 0.02  # seconds of work that may be ahead where it is not known how long a task takes
_LEAST = 1e-6  # seconds that answers take at least
_LOOP = object()
_NOBODY = object()


class Descriptor(Protocol):
    def fileno(self) -> int: ...


class TaskSource(Protocol):
    """What a link needs of its session."""

    queue: deque[Task]
    serial: bool
    cancelled: int
    draining: bool
    comebacks: int

    def requeued(self, tasks: list[Task]) -> None:
        """These are at the head of the queue again; see to them."""
        ...

    def task_failed(self, task: Task, report: bytes) -> None: ...
    def saved(self, number: int, state: tuple[Any, Any, Any]) -> None:
        """The object as it is after that call, whose answer follows."""
        ...

    def settled(self) -> None:
        """Somebody waits for the session to have no work, and this link has none."""
        ...


class Link:
    """One worker's share of the tasks.

    Attributes:
        inflight: tasks sent and not answered, oldest first. since: when the oldest got its turn.
        window: how many may be in flight; 0 while the worker is not ready, is asked to hand back, or is to end. Changed under
            ``_sending`` only, so that no frame follows a recall.
        replied: answers so far. streamed: number of the last task of which an item was delivered. attached: it has a socket.
    """

    def __init__(self, source: TaskSource, io: Loop) -> None:
        self.inflight: deque[Task] = deque()
        self.window = 0
        self.since = self.idle_since = time.monotonic()
        self.replied = self.succeeded = self.failed = 0
        self.recalling = False
        self.attached = False
        self.streamed = 0
        self._source = source
        self._io = io
        self._mean = 0.0
        self._sending = threading.Lock()
        self._taken: deque[Task] = deque()
        self._reader: dict[str, object] = {}
        self._paused = False
        self._moving = False
        self._polled_by = 0
        self._unhandled: deque[Any] = deque()

    def attach(self, sock: Descriptor, receiver: Receiver, outbox: Sending) -> None:
        """Args:
        sock: readable whenever the receiver has something. outbox: calls `pump` whenever its line has become empty.
        """
        self._sock = sock
        self._receiver = receiver
        self._outbox = outbox
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)
        self._io.read(sock.fileno(), self.read)
        self.attached = True

    @property
    def latency(self) -> float:
        """Seconds that a call and its answer are on their way, where that is worth counting."""
        return 0.0

    @property
    def running(self) -> Task | None:
        """The task that has the worker; it may end at any moment."""
        try:
            return self.inflight[0]
        except IndexError:
            return None

    @property
    def has_work(self) -> bool:
        return bool(self._taken) or bool(self.inflight)  # in this order, which is a task's

    def has(self, task: Task) -> bool:
        return task in self._taken or task in self.inflight

    def tasks(self) -> set[Task]:
        return {*self._taken, *self.inflight}

    def unanswered(self) -> list[Task]:
        """All that this link has, oldest first; for when its worker is gone."""
        with self._sending:
            return [*self.inflight, *(task for task in self._taken if task not in self.inflight)]

    # ------------------------------------------------------------------------------------------------ reading

    def read(self) -> None:
        """In the io loop, when there is something to read, or somebody has left something unhandled."""
        reader = self._reader
        if reader.setdefault("role", _LOOP) is not _LOOP:  # a driver reads; should it leave anything, it calls us
            return
        try:
            self._handle()
            self._receive()
            self._handle()
        except BlockingIOError:
            pass
        except ChannelClosed:
            self._close_channel()
        except Exception as error:
            self._abandon(error)
            self._close_channel()
        finally:
            del reader["role"]

    def _close_channel(self) -> None:
        self._io.forget(self._sock.fileno())
        self.channel_closed()

    def drive(self, task: Task, enough: Callable[[], bool], timeout: float | None) -> None:
        """Read for a caller that waits for this task, the running one. May return early: the caller goes on waiting in its own way.

        Nothing but what this socket brings ends a running task, so to wait for the socket is to wait for the task.
        """
        reader = self._reader
        if reader:  # somebody reads
            if self._polled_by == threading.get_ident():  # this very thread, further down, while a signal's handler waits for a call
                with contextlib.suppress(ChannelClosed):
                    self._read_until(enough, None if timeout is None else time.monotonic() + timeout, task)
            return
        me = object()
        try:
            # Inside, for a signal may come between any two lines: whether the role is ours is seen, not remembered.
            if reader.setdefault("role", me) is not me:
                return
            self._paused = True
            self._io.pause(self._sock.fileno())
            self._read_until(enough, None if timeout is None else time.monotonic() + timeout, task)
        except ChannelClosed:
            pass  # the loop finds that, too, and deals with it
        except BaseException as error:
            if self._moving:
                self._abandon(error)
            raise
        finally:
            try:
                self._stop_driving(me)
            except BaseException:  # interrupted once more
                self._stop_driving(me)
                raise

    def _stop_driving(self, me: object) -> None:
        if self._reader.get("role") is me:
            self._resume()  # while the role is ours: nobody else pauses meanwhile, and nobody's pausing is undone
            del self._reader["role"]
            if self._unhandled or self._receiver.torn:
                self._io.call(self.read)

    def _read_until(self, enough: Callable[[], bool], deadline: float | None, task: Task) -> None:
        spins = calling_thread.is_alone()
        while True:
            self._handle()
            if enough() or self.running is not task:
                return
            try:
                if not (spins and self._mean < QUICK and self._receiver.spin_into(self._unhandled)):
                    outer, self._polled_by = self._polled_by, threading.get_ident()
                    try:
                        readable = self._poll.poll(None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000)
                    finally:
                        self._polled_by = outer
                    if not readable:
                        return
                    self._receive()
            except BlockingIOError:
                continue

    def _receive(self) -> None:
        if self._receiver.torn:
            raise ConnectionError("a reader was interrupted in the middle of a frame")
        self._receiver.receive_into(self._unhandled, socket.MSG_DONTWAIT)

    def _resume(self) -> None:
        self._paused = False
        self._io.resume(self._sock.fileno())

    def heal(self) -> None:
        """Have the loop read where nobody does: a driver may have been interrupted in its very last lines (Ctrl-C, twice)."""
        if not self._reader and (self._paused or self._unhandled or self._receiver.torn):
            self._resume()
            self._io.call(self.read)

    def retire(self) -> bool:
        """Let nobody read any more, and say whether nobody does: its descriptors may be closed then."""
        return self._reader.setdefault("role", _NOBODY) is _NOBODY

    # ------------------------------------------------------------------------------------------------ answers

    def _handle(self) -> None:
        """Give answers to their tasks; by whoever has the role.

        A frame leaves ``_unhandled`` after its task has its answer, and is known by its number: should a signal's exception come in
        between, whoever reads next goes on where this stopped.
        """
        unhandled, inflight = self._unhandled, self.inflight
        if not unhandled:
            return
        done = 0
        while unhandled:
            frame = unhandled[0]
            if frame[0] != RESULT:
                done += self._handle_other(frame)
            elif inflight and inflight[0].number == frame[3]:
                task = inflight[0]
                if frame[1]:
                    self._succeed_with_parts(task, frame)
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
        if self._source.draining:
            self._source.settled()

    def _succeed_with_parts(self, task: Task, frame: Any) -> None:
        try:
            data, buffers, _ = decode(frame)
            content = view_of(data)
        except OSError as error:  # no room to map it
            task.fail(error)
        else:
            task.succeed(content, buffers)

    def _handle_other(self, frame: Any) -> int:
        """A frame that is no result; returns how many tasks it ends."""
        kind = frame[0]
        if kind == RETURNED:
            self._take_back(numbers_of(frame))
        elif kind == STATE:
            self._source.saved(frame[3], decode(frame))
        elif not self.inflight or self.inflight[0].number != frame[3]:
            return 0  # of a frame that was handled, but for leaving the line, when its reader was interrupted
        elif kind == ERROR:
            self._source.task_failed(self.inflight[0], frame[4])
            self.inflight[0].frame = None
            self.inflight.popleft()
            self.replied += 1
            self.failed += 1
            self.succeeded -= 1
            return 1
        elif kind == OPEN_STREAM:
            self.inflight[0].open_stream()
        elif kind == ITEM:
            data, buffers, _ = decode(frame)
            self.since = time.monotonic()
            self.streamed = frame[3]
            self.inflight[0].stream(view_of(data), buffers)
        return 0

    def _take_back(self, numbers: frozenset[int]) -> None:
        """The worker has handed back these; by number, for what is still on its way to it is not among them."""
        with self._sending:
            returned = [task for task in self.inflight if task.number in numbers]
            kept = [task for task in self.inflight if task.number not in numbers]
            self._moving = True
            self._source.comebacks += 1
            self._source.queue.extendleft(reversed(returned))  # before they leave: each is somewhere at every moment
            self.inflight.clear()
            self.inflight.extend(kept)
            self._moving = False
            if self.recalling:
                self.recalling = False
                self.window = 1
        self._source.requeued(returned)

    def _account(self, done: int, now: float) -> None:
        self.succeeded += done
        latency = self.latency  # is the way's; what is left is the worker's
        took = max(now - self.since - latency, _LEAST)
        each = took / done
        self.since = self.idle_since = now
        self._mean = each if not self._mean else 0.75 * self._mean + 0.25 * each
        with self._sending:
            if self.window:  # not while recalling, nor at the end
                ahead = int((_AHEAD + latency) / self._mean)
                if latency and not self.inflight and took < _PATIENCE:
                    # It ran dry. What that took may be the way's, whose time varies more than that of short tasks.
                    ahead = max(ahead, 2 * self.window)
                self.window = 1 if self._source.serial else max(1, min(_MOST_AHEAD, ahead))

    # ------------------------------------------------------------------------------------------------ calls

    def pump(self) -> None:
        """Send what fits. Any thread; whoever finds another at it leaves it to that one, who looks again before going."""
        queue, inflight, lock = self._source.queue, self.inflight, self._sending
        while queue and len(inflight) < self.window and not self._outbox.line:
            if lock.locked():
                return
            try:
                with lock:
                    self._send_some()
            except BaseException as error:
                # What has been sent and what not is not known any more. The worker pays for it; its tasks go back to the queue, but
                # for those that would make it happen again.
                if isinstance(error, Exception):
                    for task in self._taken:
                        task.fail(error)
                self._abandon(error)
                raise

    def _send_some(self) -> None:
        inflight, taken = self.inflight, self._taken
        room = self.window - len(inflight)
        if room <= 0:
            return
        if not inflight:
            self.since = time.monotonic()
        try:
            # In one go, as far as a signal's exception is concerned: a task is in the queue or here, never in between.
            taken.extend(islice(iter(self._source.queue.popleft, None), room))
        except IndexError:
            pass
        frames: list[bytes] = []
        for task in taken:
            inflight.append(task)
            if not task.begin():
                inflight.pop()
                self._source.cancelled += 1
                continue
            frame = task.frame
            if type(frame) is bytes:
                frames.append(frame)
                continue
            if frames:
                self._outbox.send(b"".join(frames))
                frames = []
            self.send_parts(*frame)
        if frames:
            self._outbox.send(b"".join(frames) if len(frames) > 1 else frames[0])
        taken.clear()

    def send_parts(self, frame: bytes, segments: Any) -> None:
        for message, some in descriptor_messages(segments):
            self._outbox.send(message, some)
        self._outbox.send(frame)

    def begin_recall(self) -> bool:
        """Stop sending; the tasks behind the running one are about to be asked back."""
        with self._sending:
            if self.recalling or not self.window:
                return False
            self.recalling = True
            self.window = 0
            return True

    def narrow(self) -> None:
        """One at a time from now on; those sent already have been sent."""
        with self._sending:
            self.window = min(self.window, 1)

    def close_window(self) -> None:
        """Send nothing any more, for good."""
        with self._sending:
            self.recalling = False
            self.window = 0

    # ------------------------------------------------------------------------------------------------ for the executor

    def channel_closed(self) -> None:
        """In the io loop: all that the worker has said is handled, and nothing more will come. Called once."""
        raise NotImplementedError

    def _abandon(self, error: BaseException) -> None:
        """The channel cannot be used any more: end the worker."""
        raise NotImplementedError
