"""What is explored: configurations with the rules as they are, and with each fault put back alone."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from .checker import Report, explore, hunt
from .link import Config as Links
from .link import LinkModel
from .link import Rules as LinkRules
from .starts import Config as Starts
from .starts import Rules as StartRules
from .starts import StartModel
from .stream import Config as Streams
from .stream import Rules as StreamRules
from .stream import StreamModel

_MODELS: dict[type, Any] = {Links: LinkModel, Starts: StartModel, Streams: StreamModel}
_RULES: dict[type, Any] = {Links: LinkRules, Starts: StartRules, Streams: StreamRules}


class Case(NamedTuple):
    """fault: the switch that is on, none for the rules as they are. quick: part of the test suite, the others only of `make prove`.
    hunted: too large to be explored from the start; see `hunt`."""

    name: str
    config: Any
    fault: str = ""
    quick: bool = True
    hunted: bool = False

    def model(self) -> Any:
        rules = _RULES[type(self.config)]
        return _MODELS[type(self.config)](self.config, rules(**{self.fault: True}) if self.fault else rules())

    def run(self) -> Report:
        return hunt(self.model(), seed=1) if self.hunted else explore(self.model())


_MANY = Links(((1, -1, 2, 3, -2, 4), (5, 6)), window=4, to_worker=2, to_host=2, warm=True)

SOUND = (
    Case("link: two calls, each waited for", Links(((1, -1, 2, -2),))),
    Case("link: two calls, then waited for", Links(((1, 2, -1, -2),))),
    Case("link: Ctrl-C while driving", Links(((1, -1, 2, -2),), interrupts=True)),
    Case("link: two calls, and the session closed", Links(((1, 2),), closes=True)),
    Case("link: three calls", Links(((1, 2, 3),)), quick=False),
    Case("link: two waited for, one more", Links(((1, -1, 2, -2, 3),), window=1), quick=False),
    Case("link: three calls, and the session closed", Links(((1, 2, 3),), closes=True), quick=False),
    Case("link: three calls waited for", Links(((1, 2, 3, -1, -2, -3),)), quick=False),
    Case("link: two callers", Links(((1, -1), (2, -2))), quick=False),
    Case("link: two callers, three calls", Links(((1, -1, 2), (3,))), quick=False),
    Case("two links, and the session closed", Links(((1, 2),), links=2, closes=True), quick=False),
    Case("link: three calls, its window open", Links(((1, 2, 3),), warm=True), quick=False),
    Case("stream: read by one", Streams(((1, False),))),
    Case("stream: one reads, one waits", Streams(((1, False), (1, True)))),
    Case("stream: a worker lost", Streams(((1, True),), deaths=1)),
    Case("stream: a worker lost, two readers", Streams(((1, False), (1, True)), deaths=1), quick=False),
    Case("two streams, both read", Streams(((1, False), (2, False))), quick=False),
    Case("two streams, one waited for", Streams(((1, False), (2, True))), quick=False),
    Case("two streams, with reminders", Streams(((1, False), (2, True)), reminds=True), quick=False),
    Case("starts: all fail", Starts(4, 4, ("fails",))),
    Case("starts: fail, or are killed", Starts(3, 2, ("fails", "killed"))),
    Case("starts: ready, and gone", Starts(2, 2, ("ready", "ends"))),
    Case("starts: anything", Starts(3, 2, ("fails", "killed", "ready", "answers", "ends"))),
)
"""With the rules as they are nothing may be found."""

FAULTY = (
    Case("hang 1: parked while a recall is under way", _MANY, "parking", hunted=True),
    Case("hang 1, the shortest way", Links(((1, -1, 2, 3, -2, -3, 4, -4),), to_host=2), "parking", quick=False),
    Case("sends wait for the socket", Links(((1, 2, 3, 4, 5),), window=4), "blocking_send", hunted=True),
    Case("handed back by count", Links(((1, 2, 3),)), "returned_by_count", hunted=True),
    Case("window opened without the lock", Links(((1, 2, 3, -1, -2, -3),)), "unlocked_account", hunted=True),
    Case("the line is forgotten", Links(((1, 2, 3),)), "line_forgotten", hunted=True),
    Case("resumes after giving the role away", Links(((1, -1, 2, -2, 3),), window=1), "resume_after_release"),
    Case("does not see what is taken", Links(((1, 2),), closes=True), "taken_unseen"),
    Case("does not see what comes back", Links(((1, 2, 3),), closes=True), "returns_unseen", quick=False),
    Case("hang 2: the control thread dies", Streams(((1, False), (2, False))), "control_dies"),
    Case("hang 2: credit counts from the last, and is dropped", Streams(((1, False), (2, False))), "counts_from_last"),
    Case("credit said out of order", Streams(((1, False), (1, True))), "said_unordered"),
    Case("credit not said to a new worker", Streams(((1, True),), deaths=1), "not_said_again"),
    Case("hang 3: those that start count as others", Starts(4, 4, ("fails",)), "starting_count_as_others"),
    Case("ready is success", Starts(2, 2, ("ready", "ends")), "ready_is_enough"),
    Case("the last tick does not look again", Starts(3, 2, ("fails",)), "unwatched_blindly"),
)
"""With each of these something must be found; see the switches for what they are."""


def switches() -> Iterator[str]:
    """All there are: none may be forgotten above."""
    for rules in _RULES.values():
        yield from rules._fields
