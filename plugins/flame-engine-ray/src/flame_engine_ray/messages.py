"""What passes between a connection and its executors, in Ray's calls and their answers.

Only plain types: Ray unpickles an answer before anything of ours runs.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from flame_host.api import Application, Event, FlameError, LogRecord, WorkerStartError

_REPLY = struct.Struct("<qdQ??")
CALL = struct.Struct("<QQ")
"""Ahead of the frames of an exchange: number of the executor, number of the exchange."""
NOTHING = _REPLY.pack(-1, 0.0, 0, False, False)


class Order(NamedTuple):
    """To an executor that is to begin."""

    application: Application
    session_id: str
    number: int


class Reply(NamedTuple):
    """From `Executor.exchange` and `Executor.watch`.

    Attributes:
        order: answers that carry something of the worker are counted, for calls that overlap may return in any order; -1 for others.
        took: seconds from the arrival of frames to this. begun: how many calls it has begun, at that moment.
        rests: it seems to have no more to say. over: nothing follows from the worker's data channel.
        data, segments: what the worker has sent. news: pickled `News`, or nothing.
    """

    order: int
    took: float = 0.0
    begun: int = 0
    rests: bool = False
    over: bool = False
    data: bytes = b""
    segments: Sequence[Any] = ()
    news: bytes = b""

    def written(self) -> Any:
        """As bytes where that is all there is: Ray takes ten times as long for anything that has to be pickled."""
        head = _REPLY.pack(self.order, self.took, self.begun, self.rests, self.over)
        return (head, self.data, tuple(self.segments), self.news) if self.segments or self.news else head + self.data

    @classmethod
    def read(cls, answer: Any) -> Reply:
        if isinstance(answer, bytes):
            return cls(*_REPLY.unpack_from(answer), answer[_REPLY.size :])  # type: ignore[call-arg]  # five that the format says
        head, data, segments, news = answer
        return cls(*_REPLY.unpack(head), data, segments, news)  # type: ignore[call-arg]  # likewise


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
