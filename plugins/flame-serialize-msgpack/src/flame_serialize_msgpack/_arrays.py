"""NumPy arrays and scalars. Imports NumPy, and so is imported only when a value holds one, or a message does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy

from flame_serialize_msgpack._extensions import BIG, CannotPack, CannotUnpack


def parts_of(array: Any, apart: Callable[[Any], int] | None) -> list[Any]:
    """``[dtype, shape, order, content]``: content is the bytes, or the index of a buffer that travels apart."""
    dtype = _spelling(array.dtype)
    order = "F" if array.flags.f_contiguous and not array.flags.c_contiguous else "C"
    if apart is None or array.nbytes < BIG:
        return [dtype, list(array.shape), order, array.tobytes(order)]
    flat: Any = array.reshape(-1, order=order)  # a view where the memory lies in that order, else the one copy it takes
    return [dtype, list(array.shape), order, apart(memoryview(numpy.ascontiguousarray(flat).view(numpy.uint8).data))]


def scalar_parts_of(scalar: Any) -> list[Any]:
    return [_spelling(scalar.dtype), scalar.tobytes()]


def array_of(parts: Any, buffer: Callable[[int], memoryview]) -> Any:
    """The array; one whose content travelled apart is a read-only view of it."""
    spelling, shape, order, content = parts
    dtype = _dtype(spelling)
    if isinstance(content, int):
        flat = numpy.frombuffer(buffer(content).toreadonly(), dtype=numpy.uint8).view(dtype)
    else:
        flat = numpy.frombuffer(bytearray(content), dtype=dtype) if content else numpy.empty(0, dtype)
    return flat.reshape(shape, order="F" if order == "F" else "C")


def scalar_of(parts: Any) -> Any:
    spelling, content = parts
    return numpy.frombuffer(content, dtype=_dtype(spelling), count=1)[0]


def _spelling(dtype: Any) -> str:
    if dtype.hasobject:
        raise CannotPack("is an array of Python objects", "give it a number or string dtype, send a list, or use cloudpickle")
    spelling: str = dtype.str
    if dtype.itemsize == 0 or numpy.dtype(spelling) != dtype or dtype.metadata:
        raise CannotPack(f"is an array of dtype {dtype}, which has no plain spelling", "send its fields one by one, or use cloudpickle")
    return spelling


def _dtype(spelling: Any) -> Any:
    # A string only: other spellings of a dtype can ask for objects, and comma-separated ones for structures.
    if not isinstance(spelling, str) or "," in spelling:
        raise CannotUnpack(f"{spelling!r} is no dtype")
    dtype = numpy.dtype(spelling)
    if dtype.hasobject or dtype.itemsize == 0:
        raise CannotUnpack(f"{spelling!r} is no dtype that a message may name")
    return dtype
