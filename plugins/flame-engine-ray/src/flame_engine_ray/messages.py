"""What passes between a connection and its executors, in Ray's calls and their answers.

Only plain types: Ray unpickles an answer before anything of ours runs.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flame_host.api import Application, Event, FlameError, LogRecord, WorkerStartError


class Order(NamedTuple):
    """To an executor that is to begin."""

    application: Application
    session_id: str
    number: int


class Reply(NamedTuple):
    """From `Executor.exchange` and `Executor.watch`.

    Attributes:
        order: answers that carry something of the worker are counted, for calls that overlap may return in any order; -1 for others.
        data, segments: what the worker has sent. begun: how many calls it has begun, at that moment.
            rests: it seems to have no more to say.
        over: nothing follows from the worker's data channel. news: pickled `News`, or nothing.
    """

    order: int
    data: bytes
    segments: Sequence[Any]
    begun: int
    rests: bool
    over: bool
    news: bytes


class End(NamedTuple):
    """How a worker ended, with the last of what it printed."""

    words: str
    code: int | None
    signal: int | None
    deaf: bool
    tail: str


class News(NamedTuple):
    """What is told beside answers."""

    logs: Sequence[LogRecord]
    events: Sequence[Event]
    end: End | None


def nothing(news: bytes = b"") -> tuple[Any, ...]:
    """A reply without anything of the worker."""
    return (-1, b"", (), 0, False, False, news)


def written(value: Mapping[str, Any] | BaseException) -> bytes:
    """An answer or an error; an error of ours travels as it is, any other as what it says."""
    if isinstance(value, BaseException) and not isinstance(value, FlameError):
        value = WorkerStartError(f"{type(value).__name__}: {value}")
    return pickle.dumps(value)


def read(data: bytes) -> dict[str, Any]:
    """Raises the error, if it is one."""
    value = pickle.loads(data)
    if isinstance(value, BaseException):
        raise value
    return dict(value)
