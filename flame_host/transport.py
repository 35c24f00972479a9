"""Our sessions on workers that are elsewhere: the part of the engine that other engines may build upon.

An engine of this kind brings a launcher (`Launching`), which starts workers where it likes and gives back, for each, an object with
the two channels of a worker (`Process`). Queue, windows, recalls, retries, time limits, streams, checkpoints, scaling: all of that is
`WorkerConnection`'s, the same as on one machine. On the machine where a worker runs, `Launcher` starts it.

For engine plugins, and as stable as `flame_host.api`. See ``docs/adr/0014-engines-are-given-the-sessions.md``.
"""

from flame_host._packages.travel import export_package, import_package
from flame_host.engine.launcher import Launcher, Launching
from flame_host.engine.link import Link
from flame_host.engine.local import WorkerConnection
from flame_host.engine.loop import Loop
from flame_host.engine.objects import SharedObjects
from flame_host.engine.outbox import Sending
from flame_host.engine.process import Process
from flame_host.engine.shares import Room, Share
from flame_host.worker.process import WorkerExit
from flame_host.worker.runtime.channel import HEADER, INLINE_LIMIT, START, Receiver, decode, encode
from flame_host.worker.runtime.memory import MemorySegment

__all__ = [
    "HEADER", "INLINE_LIMIT", "START", "Launcher", "Launching", "Link", "Loop", "MemorySegment", "Process", "Receiver", "Room", "Sending",
    "Share", "SharedObjects",
    "WorkerConnection", "WorkerExit", "decode", "encode", "export_package", "import_package",
]  # fmt: skip
