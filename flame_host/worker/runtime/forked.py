"""``isolation="process"``: each call runs in a fresh fork of the worker, so that whatever it changes goes with that process.

The worker waits meanwhile. The fork answers the host itself, over the worker's own sockets, which is why such a session has one call
under way at a time. It ends as the call ended: where the fork is killed or leaves by itself, the worker leaves in the same way, and the
host finds what it would have found without a fork.

Runs in the application's interpreter: standard library only, Python 3.8 syntax.
"""

import gc
import os
import resource
import signal
import socket
import struct
import threading
import time

_DONE = b"."
_CREDIT = struct.Struct("<QQ")
_SENDERS = {"flush": 3, "_send_frame": 4, "send_log": 5}
"""Methods of the worker that write frames, and where in the shared page each says that it is at it."""


class Forks:
    """Called with a frame in place of running it."""

    def __init__(self, worker):
        self._worker = worker
        gc.collect()
        gc.freeze()  # so that no fork copies these pages by looking at them

    def __call__(self, frame):
        worker = self._worker
        number = frame[3]
        worker.flush()
        for mark in _SENDERS.values():
            worker.progress[mark] = 0
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        relay = _Relay(ours)
        worker._give_credit = relay  # from before the fork on: what comes in between waits in the pipe
        worker.progress[0] = worker.started + 1
        try:
            pid = os.fork()
        except OSError as error:  # no room for another process
            del worker._give_credit
            relay.close()
            theirs.close()
            worker.started += 1
            worker._fail(number, error)
            return
        if not pid:
            ours.close()
            self._run(frame, theirs)
        theirs.close()
        worker.current, worker.busy = number, True
        try:
            try:
                if number in worker.unwanted:
                    worker._interrupted()
                answered = ours.recv(1) == _DONE
            except BaseException:
                worker.busy = False
                _let_finish_sending(pid, worker.progress, ours)
                raise
            finally:
                worker.busy = False
                worker.started += 1  # the fork counts in shared memory; we go on from there
                _kill(pid)
                ended = _reap(pid)
                del worker._give_credit
                relay.close()
        except BaseException as error:
            worker.progress[0] = worker.started
            worker._fail(number, error)
            return
        worker.current = 0
        if not answered:
            _end_like(ended)

    def _run(self, frame, pipe):
        """In the fork; never returns."""
        worker = self._worker
        try:
            os.setpgid(0, 0)  # what the call starts goes with it
            worker.forked = None
            del worker._give_credit
            worker.credited = threading.Lock()
            worker.credited.acquire()
            worker.pid = os.getpid()
            worker.sending, worker.control_sending = threading.Lock(), threading.Lock()
            for name, mark in _SENDERS.items():
                setattr(worker, name, _marked(getattr(worker, name), worker.progress, mark))
            threading.Thread(target=self._listen, args=(pipe,), daemon=True).start()
            worker._run(frame)
            worker.flush()
            pipe.sendall(_DONE)
            signal.pause()  # until we are reaped: whoever answered must not be taken for one that left
        finally:
            os._exit(1)

    def _listen(self, pipe):
        """Credit for streamed items; and when the worker is gone, so are we."""
        while True:
            data = pipe.recv(_CREDIT.size)
            if not data:
                os.kill(0, signal.SIGKILL)
            self._worker._give_credit(*_CREDIT.unpack(data))


def _marked(send, progress, mark):
    """Tell in shared memory that a frame is under way: whoever is killed in the middle of one leaves the host waiting for its rest."""

    def marked(*args):
        progress[mark] = 1
        try:
            return send(*args)
        finally:
            progress[mark] = 0

    return marked


def _let_finish_sending(pid, progress, sock):
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

    def __init__(self, sock):
        self._sock = sock
        self._closing = threading.Lock()

    def __call__(self, number, taken):
        with self._closing:  # the control thread must not write to whatever has the number of a closed descriptor by then
            try:
                self._sock.send(_CREDIT.pack(number, taken))
            except OSError:
                pass

    def close(self):
        with self._closing:
            self._sock.close()


def _kill(pid):
    for kill in (os.killpg, os.kill):
        try:
            kill(pid, signal.SIGKILL)
        except OSError:  # it is not a group yet, or gone
            pass


def _reap(pid):
    try:
        return os.waitpid(pid, 0)[1]
    except ChildProcessError:
        return 0


def _end_like(status):
    """Leave as the fork did."""
    if os.WIFEXITED(status):
        os._exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))  # one core is enough
    signal.signal(number, signal.SIG_DFL) if number not in (signal.SIGKILL, signal.SIGSTOP) else None
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
