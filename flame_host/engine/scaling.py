"""How many workers a session should have, and when it may try to start one. Decisions, no actions."""

from __future__ import annotations

_AT_LEAST = 3  # how often a start is tried again at least, when it was killed from outside
_PAUSE = 30.0  # seconds without a further start, after one has failed of itself while others run


def wanted_executors(queued: int, executors: int, starting: int, most: int) -> int:
    """How many to start now.

    As many as there are tasks that nobody has taken and nobody is starting for; a task that a running worker could have taken by
    now is not counted twice, because the caller asks only when tasks are still queued after every worker was offered them.
    """
    return max(0, min(queued - starting, most - executors))


class StartRecord:
    """How the starts of a session went: nothing starts processes without a bound.

    A start that was killed from outside is tried again, so many times in a row. One that failed of itself would fail again: what
    waits is failed with the reason, and only a further call, or some time where other workers run, makes another attempt.
    """

    def __init__(self, retries: int) -> None:
        self._most = max(_AT_LEAST, retries)
        self._killed = 0
        self._not_before = 0.0

    def succeeded(self) -> None:
        self._killed = 0
        self._not_before = 0.0

    def failed(self, now: float, *, by_chance: bool) -> bool:
        """Whether another attempt is to follow at once."""
        if by_chance and self._killed < self._most:
            self._killed += 1
            return True
        self._not_before = now + _PAUSE
        return False

    def may_start(self, now: float, others: bool) -> bool:
        """``others``: there are executors, whatever they are doing."""
        return now >= self._not_before or not others
