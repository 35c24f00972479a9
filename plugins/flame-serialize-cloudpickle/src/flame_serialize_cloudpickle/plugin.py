"""Offers the ``cloudpickle`` serializer."""

from __future__ import annotations

from collections.abc import Iterable

from flame_host.api import Serializer, hookimpl


@hookimpl
def flame_serializers() -> Iterable[Serializer]:
    from flame_serialize_cloudpickle.cloudpickle_serializer import CloudpickleSerializer

    return [CloudpickleSerializer()]
