"""Encoded values, and references to them.

Sizes are bytes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol, TypeAlias, Union


class Segment(Protocol):
    """A large immutable buffer held outside the process's heap (shared memory)."""

    @property
    def size(self) -> int: ...

    def view(self) -> memoryview:
        """Map it read-only; the mapping lives as long as the view does."""
        ...


Buffer: TypeAlias = Union[bytes, bytearray, memoryview, Segment]


@dataclass(frozen=True)
class Payload:
    """A serialized value that says how it is to be read.

    Attributes:
        format: name and major version, ``"cloudpickle/1"``.
        data: the encoded bytes.
        buffers: out-of-band buffers in the order the decoder takes them.
    """

    format: str
    data: bytes
    buffers: tuple[Buffer, ...] = ()

    @property
    def size(self) -> int:
        return len(self.data) + sum(buffer_size(buffer) for buffer in self.buffers)


def buffer_size(buffer: Buffer) -> int:
    if isinstance(buffer, memoryview):
        return buffer.nbytes
    if isinstance(buffer, (bytes, bytearray)):
        return len(buffer)
    return buffer.size


def buffer_view(buffer: Buffer) -> memoryview:
    """The bytes of a buffer, without a copy."""
    return memoryview(buffer) if isinstance(buffer, (bytes, bytearray, memoryview)) else buffer.view()


@dataclass(frozen=True)
class ObjectRef:
    """Where a result or a stored object stands.

    Two references are the same object when endpoint, key and version agree.
    """

    endpoint: str
    key: str
    version: int = 1
    format: str = ""
    size: int = 0
    digest: str = field(default="", compare=False)
