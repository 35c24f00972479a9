"""What travels between a server and its workers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flame_host.serve import frames


@pytest.mark.parametrize("value", [1, "text", ("text",), [b""], (b"", 1), None])
def test_only_byte_strings_travel(value):
    with pytest.raises(TypeError):
        frames.dumps(value)


@given(st.binary(max_size=60))
def test_whatever_a_worker_sends_is_parts_or_a_value_error(data):
    try:
        parts = frames.split(data)
    except ValueError:
        return
    assert frames.join(parts) == data


@given(st.lists(st.none() | st.binary(max_size=50), max_size=5).map(tuple))
def test_parts_come_out_as_they_went_in(parts):
    assert frames.split(frames.join(parts)) == parts
    assert frames.loads(frames.dumps((parts, {}))) == (parts, {})
    assert frames.split(frames.dumps(parts)) == parts
