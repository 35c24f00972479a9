"""The guardian: a small process that starts workers and outlives nobody.

It is the subreaper of everything the workers start, so that also a grandchild that has made itself a session of its own comes back
to it. When a worker ends, what that worker left behind is killed; when the client goes away, however it goes, everything is.

It runs on any interpreter, single-threaded (a parent-death signal is tied to the *thread* that forked), standard library only.
Protocol, on one socket: the client sends JSON lines with the descriptors of the new worker; the guardian answers with JSON lines
``{"id", "pid"}`` and ``{"id", "status"}``. Workers are forked by a zygote of their environment (see ``zygote.py``); where that does
not work, whatever the reason, they are started one by one.
"""

from __future__ import annotations

import array
import ctypes
import json
import os
import resource
import select
import signal
import socket
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from typing import Any, NoReturn

_MOST_ZYGOTES = 4
_ZYGOTE_PATIENCE = 30.0  # seconds an interpreter may take to start
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None, use_errno=True)


class Zygote:
    """Our side of one. ``sock`` is None when it has failed, and it is not tried again."""

    def __init__(self, pid: int, sock: socket.socket) -> None:
        self.pid = pid
        self.sock: socket.socket | None = sock

    def becomes_ready(self, client: socket.socket) -> bool:
        """Wait for it; not for a client that is gone."""
        assert self.sock is not None
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(client, 0)
        events = dict(poll.poll(_ZYGOTE_PATIENCE * 1000))
        return self.sock.fileno() in events and self.sock.recv(16) == b"ready\n"

    def fork(self, fds: Sequence[int]) -> int:
        """A worker's pid, or 0."""
        if self.sock is None:
            return 0
        try:
            self.sock.sendmsg([b"w"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            return int(self.sock.recv(16) or 0)
        except OSError:
            return 0

    def end(self) -> None:
        if self.sock is not None:
            self.sock.close()
            self.sock = None
            _kill(self.pid)


class Guardian:
    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.workers: dict[int, int] = {}  # pid → id
        self.zygotes: dict[str, Zygote] = {}  # by environment, the least lately used first
        self.buffer = b""
        self.descriptors: list[int] = []

    def run(self) -> None:
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the client decides; its end is our end
        poll = select.poll()
        poll.register(self.sock, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        while True:
            ready = {fd for fd, _ in poll.poll()}
            if wake_read in ready:
                os.read(wake_read, 4096)
                self.reap()
            if self.sock.fileno() in ready and not self.serve():
                return

    def serve(self) -> bool:
        try:
            data, ancillary, _, _ = self.sock.recvmsg(1 << 16, socket.CMSG_SPACE(64 * 4))
        except OSError:
            return False
        if not data:
            return False
        for level, kind, content in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                fds: array.array[int] = array.array("i")
                fds.frombytes(content)
                self.descriptors.extend(fds)
        *lines, self.buffer = (self.buffer + data).split(b"\n")
        for line in lines:
            self.obey(json.loads(line))
        return True

    def obey(self, order: Mapping[str, Any]) -> None:
        if "kill" in order:
            for pid, name in list(self.workers.items()):
                if name == order["kill"]:
                    _kill(-pid)
                    _kill(pid)
            return
        count = order["descriptors"]
        fds, self.descriptors = self.descriptors[:count], self.descriptors[count:]
        try:
            pid = self.start(order, fds)
        except OSError as error:
            self.tell({"id": order["id"], "error": "%s: %s" % (order["argv"][0], error.strerror)})
        else:
            self.workers[pid] = order["id"]
            self.tell({"id": order["id"], "pid": pid})
        finally:
            for fd in fds:
                os.close(fd)

    def start(self, order: Mapping[str, Any], fds: Sequence[int]) -> int:
        zygote = self.zygote(order)
        pid = zygote.fork(fds)
        if not pid:
            zygote.end()
            pid = self.execute(order["argv"], order["environment"], fds)
        return pid

    def zygote(self, order: Mapping[str, Any]) -> Zygote:
        key = json.dumps([order["zygote"], order["environment"]], sort_keys=True)
        zygote = self.zygotes.pop(key, None)
        if zygote is None:
            zygote = self.new_zygote(order)
            while len(self.zygotes) >= _MOST_ZYGOTES:
                self.zygotes.pop(next(iter(self.zygotes))).end()
        self.zygotes[key] = zygote
        return zygote

    def new_zygote(self, order: Mapping[str, Any]) -> Zygote:
        ours, theirs = socket.socketpair()
        null = os.open(os.devnull, os.O_WRONLY)
        try:
            zygote = Zygote(self.execute(order["zygote"], order["environment"], [theirs.fileno(), null, null]), ours)
        finally:
            os.close(null)
            theirs.close()
        if not zygote.becomes_ready(self.sock):
            zygote.end()
        return zygote

    def execute(self, argv: Sequence[str], environment: Mapping[str, str], fds: Sequence[int]) -> int:
        """Fork and exec; a failing exec is reported through a pipe that a successful one closes."""
        status_read, status_write = os.pipe()
        pid = os.fork()
        if not pid:
            try:
                _become_worker(argv, environment, fds, status_write)
            except BaseException as error:
                os.write(status_write, str(getattr(error, "errno", 0) or 0).encode())
            os._exit(127)
        os.close(status_write)
        answer = os.read(status_read, 16)
        os.close(status_read)
        if answer:
            os.waitpid(pid, 0)
            code = int(answer)
            raise OSError(code, os.strerror(code))
        return pid

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if not pid:
                return
            name = self.workers.pop(pid, None)
            if name is not None:
                self.kill_orphans(pid)
                self.tell({"id": name, "status": status})

    def kill_orphans(self, ended: int) -> None:
        """What a worker left behind: its process group, and all that has been handed to us and is no worker."""
        _kill(-ended)
        ours = {zygote.pid for zygote in self.zygotes.values() if zygote.sock is not None}.union(self.workers)
        for pid in _children(os.getpid()):
            if pid not in ours:
                _kill_tree(pid)

    def end(self) -> None:
        """Kill every descendant, and again until none is left: they may fork while we look."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            children = _children(os.getpid())
            for pid in children:
                _kill(-pid)
                _kill_tree(pid)
            try:
                while os.waitpid(-1, os.WNOHANG)[0]:
                    pass
            except ChildProcessError:
                return
            time.sleep(0.005)

    def tell(self, message: Mapping[str, Any]) -> None:
        try:
            self.sock.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            pass


def _become_worker(argv: Sequence[str], environment: Mapping[str, str], fds: Sequence[int], status_write: int) -> NoReturn:
    os.setsid()
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    _libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    # The last descriptors become 0, 1, 2; the others 3, 4, 5 … Moved out of the way first, for they may overlap.
    first_free = min(64, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)
    high = [_duplicate(fd, first_free) for fd in [status_write, *fds]]
    status, passed = high[0], high[1:]
    targets = [*range(3, 3 + len(passed) - 2), 1, 2]
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    for fd, target in zip(passed, targets):
        os.dup2(fd, target)
    os.closerange(3 + len(passed) - 2, first_free)
    for fd in range(first_free, first_free + 64):
        if fd != status:
            try:
                os.close(fd)
            except OSError:
                pass
    os.set_inheritable(status, False)
    os.execve(argv[0], list(argv), environment)


def _duplicate(fd: int, lowest: int) -> int:
    import fcntl

    return fcntl.fcntl(fd, fcntl.F_DUPFD, lowest)


def _children(parent: int) -> list[int]:
    """Direct children, by the kernel's own list where it has one: it is kept by thread."""
    try:
        found: list[int] = []
        for thread in os.listdir("/proc/%d/task" % parent):
            with open("/proc/%d/task/%s/children" % (parent, thread)) as stream:
                found.extend(int(pid) for pid in stream.read().split())
        return found
    except (OSError, ValueError):
        return [pid for pid, its_parent in _processes() if its_parent == parent]


def _processes() -> Iterator[tuple[int, int]]:
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open("/proc/%s/stat" % name) as stream:
                    yield int(name), int(stream.read().rpartition(")")[2].split()[1])
            except (OSError, ValueError):
                continue


def _kill_tree(pid: int) -> None:
    for child in _children(pid):
        _kill_tree(child)
    _kill(pid)


def _kill(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGKILL)
    except (ProcessLookupError, PermissionError):
        pass


def main() -> None:
    sock = socket.socket(fileno=int(sys.argv[1]))
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    os.setsid()
    guardian = Guardian(sock)
    try:
        guardian.run()
    finally:
        guardian.end()


if __name__ == "__main__":
    main()
