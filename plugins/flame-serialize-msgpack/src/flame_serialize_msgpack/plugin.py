"""Offers the ``msgpack`` serializer."""

from __future__ import annotations

from collections.abc import Iterable

from flame_host.api import Serializer, hookimpl


@hookimpl
def flame_serializers() -> Iterable[Serializer]:
    from flame_serialize_msgpack.msgpack_serializer import MsgpackSerializer

    return [MsgpackSerializer()]
