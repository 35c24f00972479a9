"""Seen when it happens anyway: a session that has work, and nothing goes on."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from flame_host.api import Event

if TYPE_CHECKING:
    from flame_host.engine.session import LocalSession

STALLED = "session.stalled"
_LOOK_EVERY = 1.0  # seconds
_PATIENCE = 5.0  # seconds without any progress, while no worker runs a task
logger = logging.getLogger("flame_host.engine.stall")


class StallWatch:
    """Compares what a session has done with what it had done a second before.

    By the design of the task path this never has anything to say. When it does, that is a defect of ours: it is told once, with the
    state, and the workers that should have gone on are ended, whose tasks then go back to the queue.
    """

    def __init__(self, session: LocalSession) -> None:
        self._session = session
        self._next = 0.0
        self._seen: tuple[int, ...] = ()
        self._since = 0.0
        self._told = False

    def look(self, now: float) -> None:
        """To be called again and again while there is work."""
        if now < self._next:
            return
        self._next = now + _LOOK_EVERY
        for executor in self._session.executors:
            executor.remind()
        progress = self._progress()
        if progress != self._seen or self._somebody_works():
            self._seen, self._since = progress, now
        elif now - self._since > _PATIENCE:
            self._since = now
            self._recover()

    def _progress(self) -> tuple[int, ...]:
        info = self._session.info()
        begun = sum(executor.process.begun for executor in self._session.executors if executor.process is not None)
        return (info.succeeded, info.failed, info.cancelled, begun, len(self._session.executors))

    def _somebody_works(self) -> bool:
        return any(executor.starting or executor.works() for executor in self._session.executors)

    def _recover(self) -> None:
        session = self._session
        state = session.describe()
        session.observe(Event(STALLED, time.time(), session.session_id, 0, state))
        if not self._told:
            self._told = True
            logger.warning("a session has work and makes no progress; its workers are replaced. Please report this state:\n%s", state)
        for executor in session.executors:
            executor.kill()
