"""The actor: it brings the host along, and hands everything on to it.

This module travels as code, to nodes that have nothing of ours: standard library and Ray only, and no import of ours outside of a
method. What it says back is pickled by itself, so that Ray need not know our types either.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
import tempfile
import threading
import time
import zipfile
from typing import Any

_KEPT = 7 * 86_400.0  # seconds that the bundle of another version is kept


class Executor:
    """Lives in a process of its own on some node. Three groups of calls, so that none waits for one of another kind."""

    def __init__(self) -> None:
        self._node: Any = None
        self._ready = threading.Event()

    def board(self, digest: str, bundle: Any) -> bytes:
        """``bundle`` is a list of the reference, taken if the node does not have it. Returns what this node can do."""
        _go_aboard(digest, bundle)
        from flame_engine_ray.node import Node

        self._node = Node()
        self._ready.set()
        return bytes(self._node.facts())

    def begin(self, order: bytes, package: Any) -> bytes:
        """Provision and start; ``package`` is a list of its reference, or empty."""
        return bytes(self._node.begin(order, package))

    def exchange(self, data: bytes, segments: Any = ()) -> Any:
        return self._node.exchange(data, segments)

    def hand_over(self, numbers: Any) -> Any:
        return self._node.segments.handed_over(numbers)

    def watch(self) -> Any:
        self._ready.wait()
        return self._node.watch()

    def control(self, executor: int, data: bytes) -> None:
        seat = self._node.seat(executor)
        if seat is not None:
            seat.control(data)

    def kill(self, executor: int) -> None:
        seat = self._node.seat(executor)
        if seat is not None:
            seat.kill()


def _go_aboard(digest: str, bundle: Any) -> None:
    """Unpack the bundle, once for each node and version, and import from it in this process, which does nothing else."""
    import ray

    home = os.environ.get("FLAME_HOST_ROOT") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "flame-host"
    )
    place = os.path.join(home, "bundles")
    os.makedirs(home, mode=0o700, exist_ok=True)
    os.makedirs(place, mode=0o700, exist_ok=True)
    status = os.lstat(place)
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(
            f"{place} can be changed by others than user {os.getuid()}; set FLAME_HOST_ROOT on this node to a directory of its own"
        )
    target = os.path.join(place, digest)
    if not os.path.isdir(target):
        building = tempfile.mkdtemp(prefix=".", dir=place)
        import io

        with zipfile.ZipFile(io.BytesIO(ray.get(bundle[0]))) as archive:
            archive.extractall(building)
        try:
            os.rename(building, target)
        except OSError:  # another process was quicker, with the same content
            shutil.rmtree(building, ignore_errors=True)
        _tidy(place, digest)
    os.utime(target)
    sys.path.insert(0, target)


def _tidy(place: str, digest: str) -> None:
    for name in os.listdir(place):
        path = os.path.join(place, name)
        try:
            if name != digest and os.stat(path).st_mtime < time.time() - _KEPT:
                shutil.rmtree(path, ignore_errors=True)
        except OSError:
            continue
