"""What stands in common data, task input and task output.

Ours is an envelope::

    b"FLH1" · length of the header (u32, little-endian) · header (JSON) · sections, one after another

The header names the kind of the envelope, the lengths of its sections, the payload's format and the digest of the plan it was made
under; the sections are the encoded value and its out-of-band buffers. Two older forms are told apart by their marks alone, no
decoder is ever tried out: a pickle begins with 0x80 and ends with ``.``; a BSON document begins with its own length and ends with
a zero byte. This module reads envelopes; it never opens what is in them.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import Enum
from functools import lru_cache
from typing import Any, Union

from flame_host.api import Buffer, ObjectRef, PackageRef, Payload, Plan, SerializationError, buffer_view, parse_policy
from flame_host.api.sessions import is_python_version
from flame_host.wire import bson

MAGIC = b"FLH1"
_LENGTH = struct.Struct("<I")
_HEAD = len(MAGIC) + _LENGTH.size
_KIND = b'{"kind":"'

Content = Union[Payload, ObjectRef]
"""A value: here and now, or standing in the cache."""


class Tag(Enum):
    """Which of the forms the bytes have."""

    EMPTY = "nothing"
    ENVELOPE = "an envelope"
    PICKLE = "a bare pickle"
    REFERENCE = "an object reference in BSON"
    UNKNOWN = "unknown"


def tag_of(data: bytes | None) -> Tag:
    """Tell by the marks; the marks exclude one another."""
    if not data:
        return Tag.EMPTY
    if data.startswith(MAGIC):
        return Tag.ENVELOPE
    if len(data) > 2 and data[0] == 0x80 and data[-1:] == b".":
        return Tag.PICKLE
    return Tag.REFERENCE if bson.is_document(data) else Tag.UNKNOWN


@dataclass(frozen=True)
class SessionOrder:
    """Common data of a session: the execution object and what the cluster's own messages have no field for.

    Attributes:
        content: the execution object.
        package: the application's code; None lets the URL of the application stand for it.
    """

    content: Content
    plan: Plan = field(default_factory=Plan)
    stateful: bool = False
    instantiate: bool = False
    timeout: float = 0.0
    retries: int = 0
    checkpoint: int = 0
    isolation: str = ""
    limits: Mapping[str, int] = field(default_factory=dict)
    package: PackageRef | None = None
    dependencies: tuple[str, ...] = ()
    python_version: str = ""
    environments: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class CallOrder:
    """Input of a task: method and encoded ``(args, kwargs)``, and what its references stand for.

    Attributes:
        reports: the client can read a worker's error report, and wants it with the text of a failure.
    """

    content: Payload
    method: str = ""
    plan: str = ""
    references: tuple[Content, ...] = ()
    reports: bool = False


@dataclass(frozen=True)
class Outcome:
    """Output of a task."""

    content: Content
    plan: str = ""


@lru_cache(maxsize=64)
def _digest(canonical: str) -> str:
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def plan_digest(plan: Plan) -> str:
    """Names a plan: 16 hex digits of the SHA-256 of its canonical form."""
    return _digest(json.dumps(_facts(plan), sort_keys=True, separators=(",", ":")))


def _facts(plan: Plan) -> dict[str, Any]:
    return {**vars(plan), "policy": dict(plan.policy)}


def encode_session(order: SessionOrder) -> bytes:
    sections: list[Buffer] = []
    facts = {
        "content": put_content(order.content, sections),
        "plan": plan_digest(order.plan),
        "agreed": _facts(order.plan),
        "stateful": order.stateful,
        "instantiate": order.instantiate,
        "timeout": order.timeout,
        "retries": order.retries,
        "checkpoint": order.checkpoint,
        "isolation": order.isolation,
        "limits": dict(order.limits),
        "package": asdict(order.package) if order.package else None,
        "dependencies": order.dependencies,
        "python_version": order.python_version,
        "environments": dict(order.environments),
    }
    return seal("session", facts, sections)


def decode_session(data: bytes) -> SessionOrder:
    """Raises `SerializationError` for a damaged envelope or one of another kind."""
    header, sections = open_envelope(data, "session")
    try:
        agreed = header["agreed"]
        order = SessionOrder(
            content=take_content(header["content"], sections),
            plan=_plan_of(agreed),
            stateful=bool(header["stateful"]),
            instantiate=bool(header["instantiate"]),
            timeout=float(header["timeout"]),
            retries=int(header.get("retries", 0)),
            checkpoint=int(header.get("checkpoint", 0)),
            isolation=str(header.get("isolation", "")),
            limits={str(name): int(amount) for name, amount in header.get("limits", {}).items()},
            package=PackageRef(**header["package"]) if header["package"] else None,
            dependencies=tuple(header["dependencies"]),
            python_version=_python_of(header["python_version"]),
            environments={str(key): str(value) for key, value in header["environments"].items()},
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SerializationError(f"damaged session envelope: {error!r}") from error
    if plan_digest(order.plan) != header.get("plan"):
        raise SerializationError("damaged session envelope: its plan is not the one its digest names")
    return order


def _python_of(wanted: object) -> str:
    """A path would have us run whatever stands there."""
    if wanted != "" and not is_python_version(wanted):
        raise ValueError(f"{wanted!r:.100} is no version of Python that a peer may ask for")
    return str(wanted)


def _plan_of(agreed: Mapping[str, Any]) -> Plan:
    """Judged word by word: it comes from a peer, and decides what is read here and how."""
    plan = Plan(**{**agreed, "serializers": tuple(agreed["serializers"]), "policy": parse_policy(agreed["policy"], "the session's policy")})
    names = (plan.store, plan.archiver, plan.installer, plan.cache, *plan.serializers)
    if not plan.serializers or not all(isinstance(name, str) and name for name in names):
        raise ValueError("its plan names providers that are no names")
    return plan


def encode_call(order: CallOrder) -> bytes:
    sections: list[Buffer] = []
    facts = {
        "content": put_content(order.content, sections),
        "plan": order.plan,
        "method": order.method,
        "reports": order.reports,
        "references": [put_content(reference, sections) for reference in order.references],
    }
    return seal("call", facts, sections)


def decode_call(data: bytes) -> CallOrder:
    """Raises `SerializationError` for a damaged envelope or one of another kind."""
    header, sections = open_envelope(data, "call")
    try:
        content = take_content(header["content"], sections)
        if not isinstance(content, Payload):
            raise TypeError("the arguments of a call travel with it")
        references = tuple(take_content(reference, sections) for reference in header["references"])
        return CallOrder(content, str(header["method"]), str(header["plan"]), references, bool(header["reports"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SerializationError(f"damaged call envelope: {error!r}") from error


def encode_outcome(outcome: Outcome) -> bytes:
    sections: list[Buffer] = []
    return seal("outcome", {"content": put_content(outcome.content, sections), "plan": outcome.plan}, sections)


def decode_outcome(data: bytes) -> Outcome:
    """Raises `SerializationError` for a damaged envelope or one of another kind."""
    header, sections = open_envelope(data, "outcome")
    try:
        return Outcome(take_content(header["content"], sections), str(header["plan"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SerializationError(f"damaged outcome envelope: {error!r}") from error


# ---------------------------------------------------------------- the envelope itself


def put_content(content: Content, sections: list[Buffer]) -> dict[str, Any]:
    """Add what the value is made of to the sections, and tell where it is."""
    if isinstance(content, ObjectRef):
        return {"reference": asdict(content)}
    sections += [content.data, *content.buffers]
    return {"format": content.format, "sections": 1 + len(content.buffers)}


def take_content(place: Mapping[str, Any], sections: list[memoryview], *, last: bool = False) -> Content:
    """Undo `put_content`.

    Args:
        last: the sections are in reverse, so that of thousands each is taken in no time.
    """
    if "reference" in place:
        ref = ObjectRef(**place["reference"])
        texts = (ref.endpoint, ref.key, ref.format, ref.digest)
        if not all(isinstance(text, str) for text in texts) or not isinstance(ref.version, int) or not isinstance(ref.size, int):
            raise ValueError("a reference of values that are none")
        return ref
    count = place["sections"]
    if not isinstance(count, int) or not 1 <= count <= len(sections):
        raise ValueError("fewer sections than its values need")
    if last:
        taken = [sections.pop() for _ in range(count)]
    else:
        taken = sections[:count]
        del sections[:count]
    return Payload(str(place["format"]), bytes(taken[0]), tuple(taken[1:]))


def seal(kind: str, facts: Mapping[str, Any], sections: Sequence[Buffer]) -> bytes:
    views = [buffer_view(section) for section in sections]
    header = json.dumps({"kind": kind, **facts, "lengths": [view.nbytes for view in views]}, separators=(",", ":")).encode()
    return b"".join([MAGIC, _LENGTH.pack(len(header)), header, *views])


def kind_of(data: bytes | None) -> str:
    """What an envelope says it is; empty for anything else."""
    if not data or not data.startswith(MAGIC):
        return ""
    begin = data[_HEAD : _HEAD + len(_KIND) + 32]  # `seal` writes the kind first
    return begin[len(_KIND) :].partition(b'"')[0].decode("ascii", "replace") if begin.startswith(_KIND) else ""


def open_envelope(data: bytes, kind: str) -> tuple[dict[str, Any], list[memoryview]]:
    """The header, and the sections as views of ``data``."""
    try:
        if not data.startswith(MAGIC):
            raise ValueError("it does not begin with its mark")
        start = _HEAD + _LENGTH.unpack_from(data, len(MAGIC))[0]
        header = json.loads(data[_HEAD:start])
        lengths = header["lengths"]
        if not all(isinstance(length, int) and length >= 0 for length in lengths) or start + sum(lengths) != len(data):
            raise ValueError(f"its {len(data)} bytes are not those its header counts")
    except (ValueError, KeyError, TypeError, RecursionError, struct.error) as error:
        raise SerializationError(f"damaged envelope: {error}") from error
    if header.get("kind") != kind:
        raise SerializationError(f"an envelope of kind {header.get('kind')!r} where one of kind {kind!r} belongs")
    sections = []
    view = memoryview(data)
    for length in lengths:
        sections.append(view[start : start + length])
        start += length
    return header, sections
