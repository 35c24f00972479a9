"""Workers that do not start, and calls that wait for one.

What the steps stand for (``flame_host/engine``):

======================  =======================================================================================================
callers                 ``session.submit``; ``look_after`` grows by one when there is no executor.
a tick                  ``session._scale``: `StartRecord.may_start` and `wanted_executors` of ``scaling.py``.
a start                 ``Executor._launch`` and what the worker says: it fails of itself (a misspelt dependency, an interpreter that
                        is not there, an ImportError), is killed from outside, or gets ready: ``session.executor_failed``, ``…_ready``.
a ready worker          answers a call; or ends before it has begun one, which is ``session.executor_lost`` with ``running`` -1.
time                    half a minute may pass, after which `StartRecord` allows another attempt beside running workers.
======================  =======================================================================================================

Pending calls are a number. What is *broken*: more starts than calls, cores and retries account for. A number of starts without a bound
is a way that is never long enough, so it is the bound that is asked for, not the way out.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

KILLED_AT_MOST = 3  # `scaling._AT_LEAST`


class Rules(NamedTuple):
    """Each switch puts one fault back. The first is that of commit 19e4664, the second was found on the way from 7ded1ed."""

    starting_count_as_others: bool = False
    """A failed start leaves the queue alone while any executor is left, even one that only starts; ticks start replacements."""
    ready_is_enough: bool = False
    """A start has succeeded when the worker says that it is ready, even if it then ends without beginning a call."""
    unwatched_blindly: bool = False
    """The last tick does not look again after saying that nobody watches."""


class Config(NamedTuple):
    """``fates``: what may become of a start: fails, killed, ready; and of a ready worker: answers, ends.

    most: executors. pauses: how often half a minute passes.
    """

    calls: int
    most: int
    fates: tuple[str, ...]
    pauses: int = 1


class World(NamedTuple):
    unsent: int
    queue: int = 0
    failed: int = 0
    answered: int = 0
    starting: int = 0
    ready: int = 0
    starts: int = 0
    killed: int = 0
    held: bool = False
    watched: bool = False
    leaving: bool = False
    pauses: int = 0


Step = tuple[str, World]


class StartModel:
    def __init__(self, config: Config, rules: Rules) -> None:
        self.config = config
        self.rules = rules
        # A call that finds no executor has as many started as there may be; so may have half a minute. Each success, of which there
        # are no more than calls, allows so many killed starts again.
        self.bound = (config.calls + 1) * (config.most + KILLED_AT_MOST) + config.pauses * config.most

    def first(self) -> World:
        return World(unsent=self.config.calls, pauses=self.config.pauses)

    def ended(self, world: World) -> bool:
        return not world.unsent and not world.queue and not world.starting

    def broken(self, world: World) -> str:
        if world.starts > self.bound:
            return f"more than {self.bound} starts for {self.config.calls} calls"
        if world.unsent + world.queue + world.failed + world.answered != self.config.calls:
            return "a call has no end, or two"
        return ""

    def steps(self, world: World) -> Iterator[tuple[tuple[str, str], World]]:
        for who, steps in (("caller", self._submit(world)), ("tick", self._tick(world)), ("worker", self._start(world))):
            for line, after in steps:
                yield (who, line), after

    def _submit(self, world: World) -> Iterator[Step]:
        if world.unsent:
            after = world._replace(unsent=world.unsent - 1, queue=world.queue + 1)
            if not world.watched:
                after = after._replace(watched=True)
                if not _executors(world):
                    after = _grown(after, 1)
            yield "makes a call", after

    def _tick(self, world: World) -> Iterator[Step]:
        executors = _executors(world)
        if world.queue and world.watched and not world.leaving and (not world.held or not executors):
            more = max(0, min(world.queue - world.starting, self.config.most - executors))
            if more:
                yield f"starts {more}", _grown(world, more)
        if world.held and world.pauses:
            yield "half a minute has passed", world._replace(held=False, pauses=world.pauses - 1)
        if world.watched and not world.queue and not world.leaving:
            yield "sees no work", world._replace(leaving=True)
        if world.leaving:
            after = world._replace(watched=False, leaving=False)
            if world.queue and not self.rules.unwatched_blindly:
                after = after._replace(watched=True)
                if not _executors(world):
                    after = _grown(after, 1)
            yield "stops watching, and looks again", after

    def _start(self, world: World) -> Iterator[Step]:
        fates = self.config.fates
        if world.starting:
            left = world._replace(starting=world.starting - 1)
            if "fails" in fates:
                yield "fails to start", self._failed(left, by_chance=False)
            if "killed" in fates:
                yield "is killed while it starts", self._failed(left, by_chance=True)
            if "ready" in fates:
                after = left._replace(ready=world.ready + 1)
                if self.rules.ready_is_enough:
                    after = _success(after)
                yield "is ready", after
        if world.ready:
            if "answers" in fates and world.queue:
                yield "answers a call", _success(world._replace(queue=world.queue - 1, answered=world.answered + 1))
            if "ends" in fates:
                left = world._replace(ready=world.ready - 1, watched=world.watched or world.queue > 0)
                yield "ends before it begins a call", left if self.rules.ready_is_enough else self._failed(left, by_chance=False)

    def _failed(self, world: World, *, by_chance: bool) -> World:
        """`session.executor_failed`, the executor being gone already."""
        if by_chance and world.killed < KILLED_AT_MOST:
            return _grown(world._replace(killed=world.killed + 1), 1) if _executors(world) < self.config.most else world
        if self.rules.starting_count_as_others:
            others = _executors(world) > 0
        else:
            others = world.ready > 0
            world = world._replace(held=True)
        return world if others else world._replace(failed=world.failed + world.queue, queue=0)


def _executors(world: World) -> int:
    return world.starting + world.ready


def _grown(world: World, more: int) -> World:
    return world._replace(starting=world.starting + more, starts=world.starts + more)


def _success(world: World) -> World:
    return world._replace(killed=0, held=False)
