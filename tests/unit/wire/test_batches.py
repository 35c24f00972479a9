"""Envelopes of many calls, and of their outcomes."""

from __future__ import annotations

import pytest

from flame_host.api import ObjectRef, Payload, SerializationError, WorkerCrashedError, buffer_view
from flame_host.wire.batches import (
    CALLS,
    BatchCall,
    BatchOutcome,
    CallOutcome,
    decode_calls,
    decode_outcomes,
    encode_calls,
    encode_outcomes,
    error_of,
    outcomes_elsewhere,
    where_outcomes_are,
)
from flame_host.wire.envelope import kind_of
from flame_host.wire.hosting.dialects import in_one_piece

FORMAT = "cloudpickle/1"
REF = ObjectRef("", "app/session/x", 2, FORMAT, 10)


@pytest.mark.parametrize(
    "data",
    [b"", b"FLH1", b"FLH1\x00\x00\x00\x00", encode_outcomes(BatchOutcome(()), FORMAT),
     encode_calls([BatchCall(Payload(FORMAT, b"xy"))], FORMAT, "p")[:-1],
     b'FLH1\x3f\x00\x00\x00{"kind":"calls","format":"f","plan":"p","calls":[7],"lengths":[]}'],
)  # fmt: skip
def test_damaged_calls_are_refused(data: bytes) -> None:
    with pytest.raises(SerializationError):
        decode_calls(data)


def test_calls_come_as_they_were_sent() -> None:
    calls = [
        BatchCall(Payload(FORMAT, b"plain"), number=1),
        BatchCall(Payload(FORMAT, b"with parts", (b"one", b"", b"three")), "method", (Payload("msgpack/1", b"r"), REF), 2, 1.5),
        BatchCall(REF, number=3),
        BatchCall(Payload(FORMAT, b""), number=4),
    ]
    data = encode_calls(calls, FORMAT, "plan")
    assert kind_of(data) == CALLS
    came, format, plan = decode_calls(data)
    assert (format, plan, len(came)) == (FORMAT, "plan", 4)
    for sent, got in zip(calls, came, strict=True):
        assert (got.number, got.method, got.timeout, len(got.references)) == (sent.number, sent.method, sent.timeout, len(sent.references))
        if isinstance(sent.content, Payload):
            assert isinstance(got.content, Payload)
            assert got.content.data == sent.content.data
            assert [bytes(buffer_view(part)) for part in got.content.buffers] == [bytes(buffer_view(part)) for part in sent.content.buffers]
        else:
            assert got.content == sent.content


def test_outcomes_come_as_they_ended() -> None:
    lost = error_of({"type": "WorkerCrashedError", "message": "it died", "hint": "look", "stage": "run", "application": "app"})
    outcomes = (
        CallOutcome(Payload(FORMAT, b"value")),
        CallOutcome(report=b"report"),
        CallOutcome(error=lost),
        CallOutcome(Payload(FORMAT, b"end"), items=(Payload(FORMAT, b"a"), Payload(FORMAT, b"b", (b"part",)))),
        CallOutcome(REF),
        CallOutcome(report=b"late", items=()),
    )
    batch = decode_outcomes(encode_outcomes(BatchOutcome(outcomes, 1.5, "here", ((1, "stdout", "word\n"),)), FORMAT))
    assert (batch.seconds, batch.executor, batch.logs) == (1.5, "here", ((1, "stdout", "word\n"),))
    value, raised, died, streamed, stored, late = batch.outcomes
    assert value.content == Payload(FORMAT, b"value")
    assert (raised.report, raised.failed, raised.items) == (b"report", True, None)
    assert type(died.error) is WorkerCrashedError
    assert died.error is not None
    assert (died.error.message, died.error.hint, died.error.stage, died.error.application) == ("it died", "look", "run", "app")
    assert streamed.items is not None
    assert [bytes(item.data) for item in streamed.items] == [b"a", b"b"]
    assert stored.content == REF
    assert (late.report, late.items) == (b"late", ())


def test_outcomes_that_stand_elsewhere_say_where() -> None:
    assert where_outcomes_are(outcomes_elsewhere(REF)) == REF
    assert where_outcomes_are(encode_outcomes(BatchOutcome(()), FORMAT)) is None


def test_a_value_with_parts_is_one_pickle_for_older_clients() -> None:
    import pickle

    parts: list[pickle.PickleBuffer] = []
    data = pickle.dumps({"a": pickle.PickleBuffer(bytearray(b"large"))}, 5, buffer_callback=parts.append)
    whole = in_one_piece(Payload(FORMAT, data, tuple(part.raw() for part in parts)))
    assert whole.buffers == ()
    assert bytes(pickle.loads(whole.data)["a"]) == b"large"
