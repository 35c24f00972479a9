"""Numbers of the extension types, and the two errors; the README's table is the public description of both.

A number, once released, keeps its meaning: changing one is a new major version of the format.
"""

from __future__ import annotations

TUPLE = 1
SET = 2
FROZENSET = 3
BIG_INT = 4
BYTEARRAY = 5
COMPLEX = 6
DATETIME = 7
DATE = 8
TIME = 9
TIMEDELTA = 10
DECIMAL = 11
UUID = 12
PATH = 13
ARRAY = 14
SCALAR = 15
BUFFER = 16
REFERENCE = 17
RECORD = 18
NAME = 20
INSTANCE = 21

BIG = 64 * 1024
"""Bytes from which a buffer travels out of band."""

DEPTH = 200
"""Containers within containers: above it msgpack or Python's own stack would be the ones to refuse."""

EXTENSION_DEPTH = 50
"""Tuples and sets within one another: for each, the C unpacker is called anew and takes 40 KiB of the thread's stack."""


class CannotPack(TypeError):
    """A value would not arrive as it is.

    Attributes:
        path: the part at fault, as an expression: ``args[0]['x']``. Filled in from the inside out.
        reason: what is wrong with it, beginning with a verb. hint: what to send instead, or empty.
    """

    def __init__(self, reason: str, hint: str = "", path: str = "") -> None:
        super().__init__(reason, hint, path)
        self.reason = reason
        self.hint = hint
        self.path = path

    def __str__(self) -> str:
        return f"{self.path or 'the value'} {self.reason}"


class CannotUnpack(ValueError):
    """The bytes are not what `dumps` writes, or hold what this reader may not read."""


class CodeNotAllowed(CannotUnpack):
    """A message names code where only plain data may stand, or code that this reader may not use. Nothing was imported."""
