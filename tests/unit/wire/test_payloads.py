"""Envelopes and tags: what is in them comes back, and what is damaged or of another kind is refused, not guessed at."""

from __future__ import annotations

import json
import pickle
import struct

import pytest

from flame_host.api import ObjectRef, PackageRef, Payload, Plan, SerializationError
from flame_host.wire import bson
from flame_host.wire.envelope import (
    MAGIC,
    CallOrder,
    Outcome,
    SessionOrder,
    Tag,
    decode_call,
    decode_outcome,
    decode_session,
    encode_call,
    encode_outcome,
    encode_session,
    plan_digest,
    tag_of,
)

REF = ObjectRef("grpc://127.0.0.1:9090", "app/session/object", 7)
SESSION = SessionOrder(
    Payload("cloudpickle/1", b"object", (b"first", b"")),
    plan=Plan(archiver="zip", serializers=("msgpack/1", "cloudpickle/1"), policy={"pickle": "deny"}),
    stateful=True,
    instantiate=True,
    timeout=2.5,
    package=PackageRef("file:///a.zip", "ab" * 32, 17, "zip"),
    dependencies=("numpy>=2",),
    python_version="3.12",
    environments={"KEY": "välue"},
)


def _plain(content):
    return (content.format, bytes(content.data), [bytes(buffer) for buffer in content.buffers])


@pytest.mark.parametrize(
    ("data", "tag"),
    [
        (None, Tag.EMPTY),
        (b"", Tag.EMPTY),
        (b"\x80", Tag.UNKNOWN),
        (b"just text", Tag.UNKNOWN),
        (pickle.dumps({"a": 1}, 5), Tag.PICKLE),
        (pickle.dumps(b"x" * 70000, 2), Tag.PICKLE),
        (bson.encode_reference(REF), Tag.REFERENCE),
        (b"\x05\0\0\0\0", Tag.REFERENCE),
        (encode_session(SESSION), Tag.ENVELOPE),
    ],
)
def test_every_form_is_told_by_its_mark(data, tag):
    assert tag_of(data) is tag


def test_no_pickle_is_taken_for_a_document_even_when_its_length_fits():
    # 0x80 as the low byte of a length: 128 bytes that end in a full stop, not in a zero.
    data = b"\x80\0\0\0" + b"x" * 123 + b"."
    assert len(data) == 128
    assert tag_of(data) is Tag.PICKLE
    assert tag_of(data[:-1] + b"\0") is Tag.REFERENCE


@pytest.mark.parametrize("cut", [0, 3, 4, 7, 8, 40, -1])
def test_a_cut_envelope_is_refused(cut):
    for whole, decode in ((encode_session(SESSION), decode_session), (encode_call(CallOrder(SESSION.content)), decode_call)):
        with pytest.raises(SerializationError, match="damaged"):
            decode(whole[:cut])


def test_an_envelope_of_another_kind_is_refused_by_name():
    with pytest.raises(SerializationError, match="'call' where one of kind 'session'"):
        decode_session(encode_call(CallOrder(SESSION.content)))


@pytest.mark.parametrize(
    "header",
    [
        {"kind": "call"},
        {"kind": "call", "lengths": [-1]},
        {"kind": "call", "lengths": ["a"]},
        {"kind": "call", "lengths": [], "content": {"format": "x", "sections": 2}, "method": "", "plan": "", "references": []},
        {"kind": "call", "lengths": [], "content": {"format": "x", "sections": 0}, "method": "", "plan": "", "references": []},
        {"kind": "call", "lengths": [], "content": {"reference": {"nothing": 1}}, "method": "", "plan": "", "references": []},
        ["no", "object"],
    ],
)
def test_a_header_that_lies_is_refused(header):
    encoded = json.dumps(header).encode()
    with pytest.raises(SerializationError, match="damaged"):
        decode_call(MAGIC + struct.pack("<I", len(encoded)) + encoded)


def test_a_plan_changed_on_its_way_is_noticed():
    with pytest.raises(SerializationError, match="digest"):
        decode_session(encode_session(SESSION).replace(b'"installer":"uv"', b'"installer":"pi"'))


def test_a_session_order_comes_back_whole():
    back = decode_session(encode_session(SESSION))
    assert _plain(back.content) == _plain(SESSION.content)
    assert {**vars(back), "content": None} == {**vars(SESSION), "content": None}


def test_a_call_order_comes_back_with_its_references():
    order = CallOrder(Payload("msgpack/1", b"args", (b"big" * 1000,)), "add", "0" * 16, (REF, Payload("cloudpickle/1", b"value")), True)
    back = decode_call(encode_call(order))
    assert _plain(back.content) == _plain(order.content)
    assert (back.method, back.plan, back.references[0], back.reports) == ("add", "0" * 16, REF, True)
    assert _plain(back.references[1]) == ("cloudpickle/1", b"value", [])


@pytest.mark.parametrize("content", [REF, Payload("cloudpickle/1", b"")])
def test_an_outcome_comes_back_inline_or_by_reference(content):
    assert decode_outcome(encode_outcome(Outcome(content, "p"))) == Outcome(content, "p")


def test_the_digest_of_a_plan_does_not_depend_on_the_order_of_its_policy():
    one, other = Plan(policy={"a": "1", "b": "2"}), Plan(policy={"b": "2", "a": "1"})
    assert plan_digest(one) == plan_digest(other) != plan_digest(Plan())
