"""Many calls in one task of the cluster, and their outcomes: the envelopes ``calls`` and ``outcomes``.

A cluster schedules, stores and watches each of its tasks, which costs more than a small call does. What goes through it is therefore
as many calls as are worth its while. A plain call (the object itself, its arguments here and in one piece) is one number in the header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from flame_host.api import Buffer, FlameError, ObjectRef, Payload, SerializationError
from flame_host.api import errors as api_errors
from flame_host.wire.envelope import Content, open_envelope, put_content, seal, take_content

CALLS, OUTCOMES = "calls", "outcomes"
ELSEWHERE = "flame-outcomes/1"
"""Format of outcomes that were too large for a message and stand in the cache."""


@dataclass(frozen=True)
class BatchCall:
    """One call of many.

    Attributes:
        number: the client's, under which output of the task comes back. timeout: seconds it may run, 0 for the session's limit.
    """

    content: Content
    method: str = ""
    references: tuple[Content, ...] = ()
    number: int = 0
    timeout: float = 0.0


@dataclass(frozen=True)
class CallOutcome:
    """How one call ended: with a value, a worker's report, or an error of the host's.

    Attributes:
        items: of a generator, which came before its end; None if it was none.
    """

    content: Content | None = None
    report: bytes = b""
    error: FlameError | None = None
    items: tuple[Payload, ...] | None = None

    @property
    def failed(self) -> bool:
        return self.content is None


@dataclass(frozen=True)
class BatchOutcome:
    """Attributes:
    outcomes: in the order of the calls. seconds: all took together. executor: names the process that ran them, and its state.
    logs: ``(number of the call, stream, text)``; the number is 0 where it is not known.
    """

    outcomes: tuple[CallOutcome, ...]
    seconds: float = 0.0
    executor: str = ""
    logs: tuple[tuple[int, str, str], ...] = ()


def encode_calls(calls: Sequence[BatchCall], format: str, plan: str) -> bytes:
    sections: list[Buffer] = []
    told: list[Any] = []
    for call in calls:
        content = call.content
        plain = isinstance(content, Payload) and not (content.buffers or call.method or call.references or call.timeout)
        if plain:
            sections.append(content.data)  # type: ignore[union-attr]  # plain says that it is a Payload
            told.append(call.number)
        else:
            references = [put_content(reference, sections) for reference in call.references]
            told.append([call.number, call.method, put_content(content, sections), references, call.timeout])
    return seal(CALLS, {"format": format, "plan": plan, "calls": told}, sections)


def decode_calls(data: bytes) -> tuple[list[BatchCall], str, str]:
    """The calls, the format of the plain ones, and the digest of the plan.

    Raises:
        SerializationError: a damaged envelope, or one of another kind.
    """
    header, sections = open_envelope(data, CALLS)
    sections.reverse()
    try:
        format = str(header["format"])
        return [_call(told, format, sections) for told in header["calls"]], format, str(header["plan"])
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SerializationError(f"damaged envelope of calls: {error!r}") from error


def _call(told: Any, format: str, sections: list[memoryview]) -> BatchCall:
    if isinstance(told, int):
        return BatchCall(Payload(format, bytes(sections.pop())), number=told)
    number, method, place, places, timeout = told
    references = tuple(take_content(reference, sections, last=True) for reference in places)
    content = take_content(place, sections, last=True)
    return BatchCall(content, str(method), references, int(number), float(timeout))


def encode_outcomes(batch: BatchOutcome, format: str) -> bytes:
    sections: list[Buffer] = []
    told = [_tell(outcome, format, sections) for outcome in batch.outcomes]
    facts = {"format": format, "outcomes": told, "seconds": batch.seconds, "executor": batch.executor, "logs": batch.logs}
    return seal(OUTCOMES, facts, sections)


def _tell(outcome: CallOutcome, format: str, sections: list[Buffer]) -> Any:
    content = outcome.content
    if isinstance(content, Payload) and not content.buffers and outcome.items is None and content.format == format:
        sections.append(content.data)
        return 0
    items = None if outcome.items is None else [put_content(item, sections) for item in outcome.items]
    if content is not None:
        return {"value": put_content(content, sections), "items": items}
    if outcome.error is not None:
        return {"error": error_facts(outcome.error), "items": items}
    sections.append(outcome.report)
    return {"items": items}


def decode_outcomes(data: bytes) -> BatchOutcome:
    """Raises `SerializationError` for a damaged envelope or one of another kind."""
    header, sections = open_envelope(data, OUTCOMES)
    sections.reverse()
    try:
        format = str(header["format"])
        outcomes = tuple(_outcome(told, format, sections) for told in header["outcomes"])
        logs = tuple((int(number), str(stream), str(text)) for number, stream, text in header["logs"])
        return BatchOutcome(outcomes, float(header["seconds"]), str(header["executor"]), logs)
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise SerializationError(f"damaged envelope of outcomes: {error!r}") from error


def _outcome(told: Any, format: str, sections: list[memoryview]) -> CallOutcome:
    if told == 0:
        return CallOutcome(Payload(format, bytes(sections.pop())))
    items = None if told["items"] is None else tuple(_payload(take_content(item, sections, last=True)) for item in told["items"])
    if "value" in told:
        return CallOutcome(take_content(told["value"], sections, last=True), items=items)
    if "error" in told:
        return CallOutcome(error=error_of(told["error"]), items=items)
    return CallOutcome(report=bytes(sections.pop()), items=items)


def _payload(content: Content) -> Payload:
    if isinstance(content, ObjectRef):
        raise ValueError("an item stands in the cache")
    return content


def outcomes_elsewhere(ref: ObjectRef) -> bytes:
    """What stands for outcomes that were put into the cache."""
    return seal(OUTCOMES, {"elsewhere": asdict(ref)}, [])


def where_outcomes_are(data: bytes) -> ObjectRef | None:
    """The reference, if they stand in the cache."""
    header, _ = open_envelope(data, OUTCOMES)
    found = header.get("elsewhere")
    return None if found is None else ObjectRef(**found)


# ---------------------------------------------------------------- errors of ours as facts


def error_facts(error: FlameError) -> dict[str, str]:
    names = ("message", "hint", "stage", "provider", "application")
    return {"type": type(error).__name__, **{name: str(getattr(error, name)) for name in names}}


def error_of(facts: Mapping[str, Any]) -> FlameError:
    """The error again, of its own type where that is one of `flame_host.api.errors`, and takes a message."""
    kind = getattr(api_errors, str(facts["type"]), FlameError)
    message, hint = str(facts["message"]), str(facts.get("hint", ""))
    if not (isinstance(kind, type) and issubclass(kind, FlameError)):
        kind = FlameError
    error = kind.__new__(kind)
    FlameError.__init__(error, message, hint=hint)
    return error.locate(**{name: str(facts.get(name, "")) for name in ("stage", "provider", "application")})
