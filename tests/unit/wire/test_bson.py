"""The one BSON document: bytes as the specification has them, and nothing else is read."""

from __future__ import annotations

import pytest

from flame_host.api import ObjectRef, SerializationError
from flame_host.wire import bson

WRITTEN = (
    b"\x2e\0\0\0"
    b"\x02endpoint\0\x03\0\0\0e:\0"
    b"\x02key\0\x02\0\0\0k\0"
    b"\x10version\0\x05\0\0\0"
    b"\0"
)  # fmt: skip


def test_the_bytes_are_those_of_the_specification():
    assert len(WRITTEN) == WRITTEN[0]
    assert bson.encode_reference(ObjectRef("e:", "k", 5)) == WRITTEN


@pytest.mark.parametrize("version", [0, 1, (1 << 31) - 1, 1 << 31, 1 << 60])
def test_references_come_back(version):
    ref = ObjectRef("grpc://hôst:9090", "app/ssn/ключ", version)
    assert bson.decode_reference(bson.encode_reference(ref)) == ref


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x05\0\0\0\0",
        WRITTEN[:-1],
        WRITTEN + b"\0",
        WRITTEN.replace(b"\x10version", b"\x01version"),
        WRITTEN.replace(b"\x02key\0\x02", b"\x02key\0\x7f"),
        WRITTEN.replace(b"\x02key\0\x02", b"\x02key\0\xff"),
        WRITTEN.replace(b"endpoint", b"\xff\xfendpoi"),
        WRITTEN.replace(b"endpoint", b"endpoinx"),
    ],
)
def test_anything_else_is_refused_and_says_so(data):
    with pytest.raises(SerializationError, match="BSON"):
        bson.decode_reference(data)
