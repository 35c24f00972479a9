"""The two ways of talking about a session: our envelopes, and older clients' pickles."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from flame_host.api import (
    Buffer,
    FormatNotAllowedError,
    ObjectRef,
    Payload,
    Plan,
    SerializationError,
    Serializer,
    buffer_view,
)
from flame_host.wire import bson
from flame_host.wire.envelope import (
    CallOrder,
    Outcome,
    SessionOrder,
    Tag,
    decode_call,
    decode_session,
    encode_outcome,
    plan_digest,
    tag_of,
)
from flame_host.wire.hosting.legacy import METHOD, LegacyObject
from flame_host.wire.hosting.objects import Objects
from flame_host.wire.outcomes import OUTPUT_LIMIT

_HEADER_ROOM = 4096
"""Bytes left for the header of an envelope that has to fit a message."""


@dataclass(frozen=True)
class Call:
    """What is submitted to a session."""

    method: str
    data: bytes
    buffers: Sequence[Buffer] = ()
    references: Sequence[Payload] = ()
    reports: bool = False


class Dialect(Protocol):
    """Reads a session's tasks and writes their outputs."""

    def read(self, data: bytes | None) -> Call: ...

    def write(self, payload: Payload) -> bytes: ...


class EnvelopeDialect:
    """A client of ours: small results inline, large ones by reference."""

    def __init__(self, order: SessionOrder, objects: Objects, prefix: str) -> None:
        self._format = order.plan.serializer
        self._plan = plan_digest(order.plan)
        self._objects = objects
        self._prefix = prefix

    def read(self, data: bytes | None) -> Call:
        if not data or tag_of(data) is not Tag.ENVELOPE:
            raise SerializationError(
                f"the task's input is {tag_of(data).value}, but the session was opened with an envelope",
                hint="send every call of a session by the client that opened it",
            )
        order = decode_call(data)
        self._check(order)
        references = tuple(self._objects.get(entry) if isinstance(entry, ObjectRef) else entry for entry in order.references)
        return Call(order.method, order.content.data, order.content.buffers, references, order.reports)

    def _check(self, order: CallOrder) -> None:
        if order.plan and order.plan != self._plan:
            raise SerializationError(f"the call was made under plan {order.plan}, the session under {self._plan}")
        if order.content.format != self._format:
            raise FormatNotAllowedError(f"arguments of format {order.content.format!r}; the session's plan says {self._format!r}")

    def write(self, payload: Payload) -> bytes:
        if payload.size > OUTPUT_LIMIT - _HEADER_ROOM - 16 * len(payload.buffers):
            return encode_outcome(Outcome(self._objects.put(self._prefix, payload), self._plan))
        return encode_outcome(Outcome(payload, self._plan))


class PickleDialect:
    """An older client: the worker opens what it sent, and results always go to the cache and come back as references."""

    def __init__(self, serializer: Serializer, objects: Objects, prefix: str) -> None:
        self._serializer = serializer
        self._objects = objects
        self._prefix = prefix

    def read(self, data: bytes | None) -> Call:
        if not data or tag_of(data) is not Tag.PICKLE:
            raise SerializationError(
                f"the task's input is {tag_of(data).value}, but the session was opened with a pickled RunnerContext",
                hint="send a pickled RunnerRequest",
            )
        buffers: list[Buffer] = []
        encoded = self._serializer.dumps(((data,), {}), buffers=buffers)
        return Call(METHOD, encoded, tuple(buffers))

    def write(self, payload: Payload) -> bytes:
        return bson.encode_reference(self._objects.put(self._prefix, in_one_piece(payload)))


class _Reunited:
    """Unpickles as the value of a pickle whose buffers stood apart; the standard library is all it needs."""

    def __init__(self, data: bytes, buffers: Sequence[bytearray]) -> None:
        self._reduced = (partial(pickle.loads, buffers=list(buffers)), (data,))

    def __reduce__(self) -> Any:
        return self._reduced


def in_one_piece(payload: Payload) -> Payload:
    """The payload as a pickle that older clients read, which know of no buffers apart. Nothing is opened for it."""
    if not payload.buffers:
        return payload
    return Payload(payload.format, pickle.dumps(_Reunited(payload.data, [bytearray(buffer_view(buffer)) for buffer in payload.buffers]), 4))


def order_of(data: bytes | None, objects: Objects) -> tuple[SessionOrder | None, Payload | bytes]:
    """Read common data by its tag.

    Returns:
        The order and the execution object, of a client of ours; None and a pickled RunnerContext, of an older one.

    Raises:
        SerializationError: it is none of the forms. CacheError: it stands in a cache that cannot be read.
    """
    tag = tag_of(data)
    if data and tag is Tag.ENVELOPE:
        order = decode_session(data)
        return order, objects.get(order.content) if isinstance(order.content, ObjectRef) else order.content
    if data and tag is Tag.REFERENCE:
        return None, objects.get(bson.decode_reference(data)).data
    if data and tag is Tag.PICKLE:
        return None, data
    raise SerializationError(
        f"the session's common data is {tag.value}; it must hold the execution object",
        hint="open the session with flamepy's Runner, or serve your own FlameService with flamepy.run(service)",
    )


def legacy_payload(serializer: Serializer, context: bytes) -> Payload:
    """The execution object of an older client, wrapped up unopened."""
    plan = Plan()
    buffers: list[Buffer] = []
    return Payload(plan.serializer, serializer.dumps(LegacyObject(context), buffers=buffers), tuple(buffers))
