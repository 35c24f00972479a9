"""Frames survive any split of the byte stream; bytes that are no frames end in an error, never in a wrong answer or a hang."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading

from hypothesis import given, settings
from hypothesis import strategies as st

from flame_host.worker.runtime.channel import (
    CALL,
    ERROR,
    HEADER,
    INLINE_LIMIT,
    ITEM,
    RESULT,
    ChannelClosed,
    Receiver,
    decode,
    encode,
    view_of,
)

FRAMES = st.lists(
    st.tuples(
        st.sampled_from([CALL, RESULT, ERROR, ITEM]),
        st.integers(0, 2**32 - 1),
        st.binary(max_size=300),
        st.lists(st.binary(max_size=50), max_size=3),
        st.binary(max_size=20),
    ),
    max_size=20,
)


def received(data: bytes, cuts: list[int]) -> list[tuple]:
    """What a receiver makes of the bytes, written in these pieces."""
    ours, theirs = socket.socketpair()
    places = sorted({min(cut, len(data)) for cut in cuts} | {0, len(data)})

    def write() -> None:
        with theirs:
            for start, stop in itertools.pairwise(places):
                theirs.sendall(data[start:stop])

    frames = []
    writer = threading.Thread(target=write)
    writer.start()
    with ours:
        receiver = Receiver(ours)
        with contextlib.suppress(ChannelClosed):
            while True:
                frames.extend(receiver.receive())
        receiver.close()
        writer.join()
    return frames


@settings(deadline=None, max_examples=100)
@given(FRAMES, st.lists(st.integers(0, 8000), max_size=30))
def test_frames_arrive_whole_and_in_order_however_the_stream_is_cut(frames, cuts):
    stream = b"".join(encode(kind, number, data, buffers, (), method)[0] for kind, number, data, buffers, method in frames)
    arrived = received(stream, cuts)
    assert len(arrived) == len(frames)
    for (kind, number, data, buffers, method), frame in zip(frames, arrived, strict=True):
        got, parts, references = decode(frame)
        assert (frame[0], frame[3], bytes(view_of(got))) == (kind, number, data)
        assert [bytes(view_of(part)) for part in parts] == buffers
        assert frame[4][: frame[2]] == method
        assert references == ([] if buffers else ())


@settings(deadline=None, max_examples=100)
@given(FRAMES.filter(bool), st.data())
def test_a_stream_that_is_cut_off_gives_the_whole_frames_before_the_cut(frames, data):
    encoded = [encode(kind, number, body, (), (), method)[0] for kind, number, body, _, method in frames]
    stream = b"".join(encoded)
    end = data.draw(st.integers(0, len(stream)))
    whole, size = 0, 0
    for frame in encoded:
        size += len(frame)
        whole += size <= end
    assert len(received(stream[:end], [])) == whole


@settings(deadline=None, max_examples=10)
@given(st.integers(INLINE_LIMIT - 2, INLINE_LIMIT + 2))
def test_a_body_around_the_size_that_goes_through_shared_memory_arrives(size):
    frame, _ = encode(RESULT, 1, bytes(min(size, INLINE_LIMIT)))
    assert [len(decode(got)[0]) for got in received(frame, [1, 11, 12, 13])] == [min(size, INLINE_LIMIT)]


def test_a_frame_far_larger_than_the_buffer_arrives_whole():
    data = bytes(range(256)) * (40 << 12)  # 40 MiB
    stream = HEADER.pack(CALL, 0, 0, 7, len(data)) + data + HEADER.pack(RESULT, 0, 0, 8, 0)
    first, second = received(stream, [1, 100, 5 << 20, 17 << 20])
    assert first[4] == data
    assert second[3] == 8


def test_a_length_that_is_only_announced_reserves_no_memory():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        receiver = Receiver(ours)
        theirs.sendall(HEADER.pack(RESULT, 0, 0, 1, 2**32 - 1) + b"x" * 1000)
        assert receiver.receive() == []
        assert len(receiver._buffer) <= 16 << 20
