"""What the machine itself allows, with nothing of ours in between."""

from __future__ import annotations

import gc
import os
import pickle
import socket
import statistics
import struct
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from _serve import latency, noop, resident, serve

HEADER = struct.Struct("<BBHII")
FRAMES = 256


class Answer:
    """The least that a future is."""

    __slots__ = ("value",)

    def set_result(self, value: Any) -> None:
        self.value = value

    def result(self) -> Any:
        return self.value


def _fork(work: Callable[[socket.socket], None]) -> Any:
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        ours.close()
        try:
            work(theirs)
        finally:
            os._exit(0)
    theirs.close()
    return ours, pid


def _echo(sock: socket.socket) -> None:
    buffer = bytearray(1 << 16)
    while count := sock.recv_into(buffer):
        sock.send(memoryview(buffer)[:count])


def ping_pong(calls: int) -> float:
    """Median microseconds of one framed round trip over a blocking socket pair."""
    sock, pid = _fork(_echo)
    buffer, body, size = bytearray(1 << 16), b"x" * 28, HEADER.size + 28

    def call() -> Any:
        sock.send(HEADER.pack(1, 0, 0, 7, 28) + body)
        assert sock.recv_into(buffer) == size
        HEADER.unpack_from(buffer)

    try:
        return latency(call, calls)
    finally:
        sock.close()
        os.waitpid(pid, 0)


def _frames(sock: socket.socket, rest: bytes) -> Any:
    """All whole frames of one read, and what is left over."""
    data = rest + sock.recv(1 << 18)
    if len(data) == len(rest):
        return None, b""
    found, at, size = [], 0, HEADER.size
    while at + size <= len(data):
        _, _, _, number, length = HEADER.unpack_from(data, at)
        if at + size + length > len(data):
            break
        at += size + length
        found.append((number, data[at - length : at]))
    return found, data[at:]


def _work(sock: socket.socket) -> None:
    rest = b""
    while True:
        frames, rest = _frames(sock, rest)
        if frames is None:
            return
        out = []
        for number, body in frames:
            result = pickle.dumps(noop(*pickle.loads(body)), 5)
            out.append(HEADER.pack(1, 0, 0, number, len(result)) + result)
        sock.sendall(b"".join(out))


def coalescing(tasks: int, bare: bool = False, workers: int = 2) -> dict[str, float]:
    """Many calls, pickled, framed, gathered, run by two workers: cost in microseconds, bytes a task.

    A call gives a `concurrent.futures.Future`, as an engine would hand it out; ``bare`` does with a slot.
    """
    kind = Answer if bare else Future
    links = [_fork(_work) for _ in range(workers)]
    gc.collect()
    before = resident()
    begun = time.perf_counter()
    rests = [b""] * workers
    flying: deque[tuple[int, int]] = deque()
    answers: list[Any] = []
    sent = turn = 0
    while sent < tasks or flying:
        while sent < tasks and len(flying) < 2 * workers:
            some = range(sent, min(sent + FRAMES, tasks))
            out = []
            for number in some:
                body = pickle.dumps((1, 2), 5)
                answers.append(kind())
                out.append(HEADER.pack(1, 0, 0, number, len(body)) + body)
            links[turn][0].sendall(b"".join(out))
            flying.append((turn, len(some)))
            sent, turn = some.stop, (turn + 1) % workers
        worker, due = flying.popleft()
        while due > 0:
            frames, rests[worker] = _frames(links[worker][0], rests[worker])
            due -= len(frames)
            for number, body in frames:
                answers[number].set_result(body)
        if due:  # the next batch of this worker has begun to arrive
            index = next(index for index, (other, _) in enumerate(flying) if other == worker)
            flying[index] = (worker, flying[index][1] + due)
    for one in answers:
        pickle.loads(one.result())
    taken = time.perf_counter() - begun
    grown = resident() - before
    for sock, _ in links:  # all of them first: a later child holds the earlier children's sockets, too
        sock.close()
    for _, pid in links:
        os.waitpid(pid, 0)
    return {"cost": taken / tasks * 1e6, "bytes": grown * 1024 / tasks}


def copy(mebibytes: int, times: int) -> float:
    """Seconds of one copy into shared memory, by write()."""
    source = memoryview(bytearray(b"\1") * (mebibytes << 20))
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        _written(source)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


def _written(source: memoryview) -> None:
    """A shared-memory file's descriptor, closed by the caller; here at once, as only the copy is measured."""
    with open(os.memfd_create("limit"), "wb", buffering=0) as target:
        at = 0
        while at < len(source):
            at += target.write(source[at:])


def sums(mebibytes: int, count: int, times: int) -> float:
    """Seconds of one copy into shared memory, and of so many sums by two processes that each map it once."""
    import mmap

    import numpy

    array = numpy.ones(mebibytes << 17)
    taken = []
    for _ in range(times):
        begun = time.perf_counter()
        descriptor = os.memfd_create("limit")
        with open(descriptor, "wb", buffering=0, closefd=False) as target:
            view = memoryview(array).cast("B")  # type: ignore[arg-type]  # numpy says so from Python 3.12 on
            at = 0
            while at < len(view):
                at += target.write(view[at:])
        pids = []
        for _ in range(2):
            pid = os.fork()
            if not pid:
                there = numpy.frombuffer(mmap.mmap(descriptor, len(view), prot=mmap.PROT_READ))
                for _ in range(count // 2):
                    there.sum()
                os._exit(0)
            pids.append(pid)
        for pid in pids:
            os.waitpid(pid, 0)
        os.close(descriptor)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken)


if __name__ == "__main__":
    serve({"latency": ping_pong, "pending": coalescing, "copy": copy, "readers": sums})
