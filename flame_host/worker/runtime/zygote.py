"""The zygote: an interpreter that has started and imported what every worker needs, and forks workers on order.

It belongs to one environment and one set of variables, so a worker that it forks is what a new process would be, but for the time
that takes. Of the application it imports nothing but what reads and writes its values. A worker is forked twice, so that the
guardian, which is the subreaper, becomes its parent.

Runs in the application's interpreter: standard library only, Python 3.8 syntax. Protocol, on one socket: ``ready`` is said once;
each order is one byte with the descriptors of the new worker, each answer the number of its process, 0 when there is none.
"""

from __future__ import annotations

import array
import ctypes
import gc
import importlib
import json
import os
import signal
import socket
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True)


def main(descriptor: int, start: Callable[..., None]) -> None:
    """Serve orders until the guardian is gone. ``start`` is called in each worker with its descriptors: data, control, progress."""
    sock = socket.socket(fileno=descriptor)
    guardian = os.getppid()
    _import_ahead(**json.loads(sys.argv[2]))
    if len(os.listdir("/proc/self/task")) > 1:
        return  # something in the environment has started a thread; a fork would leave it behind in the middle of anything
    gc.collect()
    gc.freeze()  # so that the collector of a worker does not copy these pages by looking at them
    sock.sendall(b"ready\n")
    while True:
        fds = _order(sock)
        if fds is None:
            return
        middle = os.fork()
        if not middle:
            _fork_again(sock, guardian, fds, start)
        os.waitpid(middle, 0)
        for fd in fds:
            os.close(fd)


def _import_ahead(modules: Sequence[str], paths: Sequence[str], support: str) -> None:
    """With the path that the workers will have, so that each finds what it would find by itself. An error is theirs to tell."""
    import resource  # noqa: F401  before the application's directories are on the path

    before = list(sys.path)
    sys.path[:0] = paths
    sys.path.append(support)
    for name in modules:
        try:
            importlib.import_module(name)
        except BaseException:
            break
    sys.path[:] = before


def _order(sock: socket.socket) -> list[int] | None:
    data, ancillary, _, _ = sock.recvmsg(1, socket.CMSG_SPACE(16 * 4))
    if not data:
        return None
    fds: array.array[int] = array.array("i")
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(content)
    return list(fds)


def _fork_again(sock: socket.socket, guardian: int, fds: Sequence[int], start: Callable[..., None]) -> NoReturn:
    """Never returns."""
    try:
        worker = os.fork()
    except OSError:
        worker = -1
    if worker:
        sock.sendall(b"%d\n" % max(worker, 0))
        os._exit(0)
    try:
        sock.close()
        while os.getppid() != guardian:  # the process in between is about to end
            os.sched_yield()
        _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() == guardian:  # it may have died before we asked to be told
            os.setsid()
            *own, stdout, stderr = fds
            for fd, target in ((stdout, 1), (stderr, 2)):
                os.dup2(fd, target)
                os.close(fd)
            start(*own)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(127)
