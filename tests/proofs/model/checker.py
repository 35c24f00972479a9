"""Explores every interleaving of a model's atomic steps, breadth first, so that what it finds comes with a shortest trace.

A model has an initial state, and gives the steps that are possible in a state: pairs of a line to read and the state after it. States
are named tuples of named tuples: equal ones are one. Nothing is assumed about who gets his turn when.

Three things are looked for:

* *broken*: a state that breaks an invariant, says the model;
* *stuck*: a state, not an end, in which no step leads anywhere else: a deadlock;
* *no way out*: a state from which no sequence of steps at all leads to an end: a deadlock in which somebody is still busy (AG EF end).
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, Protocol

State = Any
Step = tuple[tuple[str, str], State]
"""Who, what, and what is then."""


class Model(Protocol):
    def first(self) -> State: ...
    def steps(self, state: State) -> Iterable[Step]: ...
    def ended(self, state: State) -> bool:
        """Everybody has what he waits for."""
        ...

    def broken(self, state: State) -> str:
        """The invariant that does not hold here; nothing if all do."""
        ...


class Report(NamedTuple):
    """What was found; ``verdict`` is empty when that is nothing, and everything was explored."""

    verdict: str
    states: int
    steps: int
    seconds: float
    trace: tuple[str, ...] = ()


class TooLarge(Exception):
    """The space of a model is larger than allowed; nothing has been proven."""


def explore(model: Model, most: int = 5_000_000, first: State = None) -> Report:
    """Every state that can be reached from the first one, or from the one given."""
    began = time.perf_counter()
    first = model.first() if first is None else first
    known: dict[State, int] = {first: 0}
    states: list[State] = [first]
    came: list[tuple[int, tuple[str, str]]] = [(-1, ("", ""))]
    before: list[list[int]] = [[]]  # by whom each state can be reached
    ends: list[int] = []
    steps = 0
    here = 0

    def report(verdict: str, at: int) -> Report:
        return Report(verdict, len(states), steps, time.perf_counter() - began, tuple(_way(came, at)))

    while here < len(states):
        state = states[here]
        trouble = model.broken(state)
        if trouble:
            return report(f"broken: {trouble}", here)
        goes_on = False
        for line, after in model.steps(state):
            steps += 1
            there = known.get(after)
            if there is None:
                there = known[after] = len(states)
                if there >= most:
                    raise TooLarge(f"{type(model).__name__} has more than {most:,} states")
                states.append(after)
                came.append((here, line))
                before.append([])
            if there != here:
                goes_on = True
                before[there].append(here)
        if model.ended(state):
            ends.append(here)
        elif not goes_on:
            return report("stuck", here)
        here += 1
    lost = _without_end(before, ends)
    return report("", 0) if lost is None else report("no way out", lost)


def hunt(model: Model, seed: int, walks: int = 400, length: int = 400, most: int = 4_000) -> Report:
    """For rules that are known to be wrong: walk at random, then explore what can be reached from there; quicker than from the start.

    What it finds is as sure as what `explore` finds; that it finds nothing means nothing.
    """
    began = time.perf_counter()
    turn = random.Random(seed)
    states = steps = 0

    def report(verdict: str, way: list[str]) -> Report:
        return Report(verdict, states, steps, time.perf_counter() - began, tuple(way))

    for _ in range(walks):
        state = model.first()
        way: list[str] = []
        for _ in range(length):
            choices = [step for step in model.steps(state) if step[1] != state]
            steps += len(choices)
            if not choices:
                break
            (who, what), state = turn.choice(choices)
            way.append(f"{who}: {what}")
            states += 1
            trouble = model.broken(state)
            if trouble:
                return report(f"broken: {trouble}", way)
        if model.ended(state):
            continue
        try:
            found = explore(model, most, state)
        except TooLarge:
            continue
        states, steps = states + found.states, steps + found.steps
        if found.verdict:
            return report(found.verdict, [*way, *found.trace])
    return report("", [])


def _without_end(before: list[list[int]], ends: list[int]) -> int | None:
    """The state nearest to the first from which no end can be reached."""
    saved = bytearray(len(before))
    line = deque(ends)
    for end in ends:
        saved[end] = 1
    while line:
        for one in before[line.popleft()]:
            if not saved[one]:
                saved[one] = 1
                line.append(one)
    place = saved.find(0)
    return None if place < 0 else place


def _way(came: list[tuple[int, tuple[str, str]]], at: int) -> Iterator[str]:
    lines = []
    while at > 0:
        at, (who, what) = came[at]
        lines.append(f"{who}: {what}")
    return reversed(lines)
