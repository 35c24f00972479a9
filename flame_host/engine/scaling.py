"""How many workers a session should have. Pure decisions."""

from __future__ import annotations


def wanted_executors(queued: int, executors: int, starting: int, most: int) -> int:
    """How many to start now.

    As many as there are tasks that nobody has taken and nobody is starting for; a task that a running worker could have taken by
    now is not counted twice, because the caller asks only when tasks are still queued after every worker was offered them.
    """
    return max(0, min(queued - starting, most - executors))
