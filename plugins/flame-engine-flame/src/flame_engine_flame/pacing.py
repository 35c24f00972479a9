"""How many calls go into one task of the cluster, and how many tasks are under way: decided from what was measured.

A cluster's task costs milliseconds whatever is in it. Short calls are gathered until one task is worth a tenth of a second; long
ones go singly, as many as there are, for the cluster's scheduler to spread. Pure but for what it is told.
"""

from __future__ import annotations

_WORTH = 0.1
"""Seconds of work in one task of the cluster, at least; and at least as long as the task's way there and back takes."""
_MOST_WORTH = 1.0
_LONG = 0.05
"""Seconds from which a call is not gathered."""
_MOST_CALLS = 4096
_MOST_TASKS = 1000
_FIRST_TASKS = 2
_DOUBLING = 1.0
"""Seconds after which twice as many are tried, while nothing has come back."""
_GROWTH = 2.0
"""Seconds of work that have to wait before another executor is worth its start."""


class Pace:
    """Attributes:
    seconds: a call takes, on average of late; 0 while none has come back.
    """

    def __init__(self, *, ordered: bool) -> None:
        self._ordered = ordered
        self.seconds = 0.0
        self._worth = _WORTH
        self._executors: set[str] = set()
        self._begun = 0.0

    def came_back(self, calls: int, seconds: float, executor: str, elapsed: float = 0.0) -> None:
        """A task of so many calls has ended.

        Args:
            seconds: the calls took there. elapsed: since the task was sent; where the cluster is slow, more goes into each.
        """
        way = min(_MOST_WORTH, max(_WORTH, elapsed - seconds))
        self._worth += 0.25 * (way - self._worth)
        self._executors.add(executor)
        mean = seconds / max(1, calls)
        weight = 0.5 if calls > 1 or not self.seconds else 0.25
        self.seconds = mean if not self.seconds else self.seconds + weight * (mean - self.seconds)

    def tasks(self, now: float, queued: int) -> int:
        """How many may be under way. A cluster starts an executor for each that has to wait, so none waits without need."""
        if self._ordered:
            return 1
        if not self.seconds:  # nothing has come back yet: more and more, for the calls may be long and the executors many
            self._begun = self._begun or now
            return min(_MOST_TASKS, _FIRST_TASKS << min(10, int((now - self._begun) / _DOUBLING)))
        if self.seconds >= _LONG:
            return _MOST_TASKS
        known = len(self._executors)
        return 2 * known + 2 if queued * self.seconds > _GROWTH * known else known + 1

    def calls(self, queued: int) -> int:
        """How many go into the next task."""
        if not self.seconds:
            return 1
        if self.seconds >= _LONG:
            return 1
        fair = queued if self._ordered else -(-queued // max(1, len(self._executors)))
        return max(1, min(_MOST_CALLS, int(self._worth / self.seconds), fair))
