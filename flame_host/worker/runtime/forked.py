"""``isolation="process"``: each call runs in a fresh fork of the worker, so that whatever it changes goes with that process.

The worker waits meanwhile. The fork answers the host itself, over the worker's own sockets, which is why such a session has one call
under way at a time. It ends as the call ended: where the fork is killed or leaves by itself, the worker leaves in the same way, and the
host finds what it would have found without a fork.

Runs in the application's interpreter: standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import gc
import os
import resource
import signal
import socket
import struct
import threading
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .bootstrap import Worker
    from .channel import Frame

_DONE = b"."
_CREDIT = struct.Struct("<QQ")
_SENDERS = {"flush": 3, "send_frame": 4, "log": 5}
"""Methods of `Replies` that write frames, and where in the shared page each says that it is at it."""


class Forks:
    """Called with a frame in place of running it."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        gc.collect()
        gc.freeze()  # so that no fork copies these pages by looking at them

    def __call__(self, frame: Frame) -> None:
        worker, task = self._worker, self._worker.task
        number = frame[3]
        worker.replies.flush()
        for mark in _SENDERS.values():
            worker.progress[mark] = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        relay = _Relay(ours)
        worker.give_credit = relay  # from before the fork on: what comes in between waits in the pipe
        worker.progress[0] = worker.started + 1
        try:
            pid = os.fork()
        except OSError as error:  # no room for another process
            worker.give_credit = worker.credit.give
            relay.close()
            theirs.close()
            worker.started += 1
            worker.fail(number, error)
            return
        if not pid:
            ours.close()
            self._run(frame, theirs)
        theirs.close()
        task.number, task.busy = number, True
        try:
            try:
                if number in task.unwanted:
                    task.check()
                answered = ours.recv(1) == _DONE
            except BaseException:
                task.busy = False
                _let_finish_sending(pid, worker.progress)
                raise
            finally:
                task.busy = False
                worker.started += 1  # the fork counts in shared memory; we go on from there
                _kill(pid)
                ended = _reap(pid)
                worker.give_credit = worker.credit.give
                relay.close()
        except BaseException as error:
            worker.progress[0] = worker.started
            worker.fail(number, error)
            return
        task.number = 0
        if not answered:
            _end_like(ended)

    def _run(self, frame: Frame, pipe: socket.socket) -> NoReturn:
        """In the fork; never returns."""
        worker = self._worker
        try:
            os.setpgid(0, 0)  # what the call starts goes with it
            worker.forked = None
            worker.give_credit = worker.credit.give
            worker.credit.renew_lock()
            worker.pid = os.getpid()
            worker.replies.renew_locks()
            for name, mark in _SENDERS.items():
                setattr(worker.replies, name, _marked(getattr(worker.replies, name), worker.progress, mark))
            threading.Thread(target=self._listen, args=(pipe,), daemon=True).start()
            worker.run(frame)
            worker.replies.flush()
            pipe.sendall(_DONE)
            signal.pause()  # until we are reaped: whoever answered must not be taken for one that left
        finally:
            os._exit(1)

    def _listen(self, pipe: socket.socket) -> None:
        """Credit for streamed items; and when the worker is gone, so are we."""
        while True:
            data = pipe.recv(_CREDIT.size)
            if not data:
                os.kill(0, signal.SIGKILL)
            self._worker.give_credit(*_CREDIT.unpack(data))


def _marked(send: Callable[..., Any], progress: memoryview, mark: int) -> Callable[..., Any]:
    """Tell in shared memory that a frame is under way: whoever is killed in the middle of one leaves the host waiting for its rest."""

    def marked(*args: object) -> Any:
        progress[mark] = 1
        try:
            return send(*args)
        finally:
            progress[mark] = 0

    return marked


def _let_finish_sending(pid: int, progress: memoryview) -> None:
    """Stop the fork where it is; when that is in the middle of a frame, let it go on until it has done with that."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        _, status = os.waitpid(pid, os.WUNTRACED)
        if not os.WIFSTOPPED(status) or not any(progress[mark] for mark in _SENDERS.values()):
            return
        os.kill(pid, signal.SIGCONT)
        time.sleep(0.001)


class _Relay:
    """Stands where the worker would take credit itself: what is said here is said in the fork, whenever that comes to read it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._closing = threading.Lock()

    def __call__(self, number: int, taken: int) -> None:
        with self._closing:  # the control thread must not write to whatever has the number of a closed descriptor by then
            try:
                self._sock.send(_CREDIT.pack(number, taken))
            except OSError:
                pass

    def close(self) -> None:
        with self._closing:
            self._sock.close()


def _kill(pid: int) -> None:
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:  # it is not a group yet, or gone
            pass


def _reap(pid: int) -> int:
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def _end_like(status: int) -> None:
    """Leave as the fork did."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # one core is enough
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
