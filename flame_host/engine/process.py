"""A worker as its executor sees it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any, Protocol

from flame_host.engine.outbox import Outbox, Sending
from flame_host.worker.process import WorkerExit, WorkerProcess
from flame_host.worker.runtime.channel import Receiver

if TYPE_CHECKING:
    from flame_host.engine.link import Link
    from flame_host.engine.loop import Loop


class Process(Protocol):
    """What an executor needs of its worker, wherever that runs; `WorkerProcess` is one of this machine.

    When it has ended, and how is known, ``gone`` is set and the executor's ``process_ended`` called. Its data channel ends by itself,
    after all that it has sent.

    Attributes:
        latency: seconds that a call and its answer are on their way; 0 on this machine.
        begun: how many calls it has begun. at_rest: it has answered all that have reached it. deaf: a task has closed its descriptors.
    """

    gone: threading.Event
    latency: float

    @property
    def pid(self) -> int: ...
    @property
    def begun(self) -> int: ...
    @property
    def at_rest(self) -> bool: ...
    @property
    def deaf(self) -> bool: ...
    def join(self, link: Link) -> Sending:
        """`attach` the link to its data channel; returns what sends on its control channel."""
        ...

    def kill(self) -> None:
        """End it, soon; any thread, more than once."""
        ...

    def how_it_ended(self) -> WorkerExit: ...


class LocalProcess(WorkerProcess):
    """One of this machine."""

    def __init__(self, io: Loop, *arguments: Any) -> None:
        self._io = io
        super().__init__(*arguments)

    def join(self, link: Link) -> Sending:
        link.attach(self.data, Receiver(self.data), Outbox(self.data, self._io, link.pump))
        return Outbox(self.control, self._io)
