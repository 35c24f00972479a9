"""Pickle protocol 5, by cloudpickle where plain pickle will not do: the half of the format that workers run.

Standard library only at import; cloudpickle is imported when the first value needs it. It must not import ``flame_host``: in a
worker this package stands in a support directory, alone. Errors are therefore this module's own (`CannotPickle`) and the provider
translates them.
"""

from __future__ import annotations

import io
import pickle
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

BIG = 64 * 1024
"""Bytes from which a buffer travels out of band: below it the copy is cheaper than the bookkeeping."""

_PROTOCOL = 5
_MANY = 64
"""Items above which looking at each costs more than the Pickler that looking would spare."""

_ATOMS = frozenset({int, float, str, bool, type(None)})
_BUILTIN = frozenset({"builtins", "types"})
_plain_dumps = pickle.dumps
_plain_loads = pickle.loads
_only_atoms = _ATOMS.issuperset


class CannotPickle(TypeError):
    """A value cannot be pickled.

    Attributes:
        path: the smallest part at fault, as an expression (``self._lock``, ``args[0]['x']``) or in words
            (``closure variable 'db'``).
        type_name: qualified type of that part.
        reason: what pickle said about it.
    """

    def __init__(self, path: str, type_name: str, reason: str) -> None:
        super().__init__(path, type_name, reason)
        self.path = path
        self.type_name = type_name
        self.reason = reason

    def __str__(self) -> str:
        return f"{self.path} cannot be pickled: it is a {self.type_name} ({self.reason})"


def dumps(value: Any, *, buffers: list[Any] | None = None, reference: Callable[[object], int | None] | None = None) -> bytes:
    """Encode; see ``Serializer.dumps``. Raises `CannotPickle` and then leaves ``buffers`` as they were."""
    # The hot path: nearly every call is a few numbers and strings, for which setting up a Pickler costs ten times the pickling.
    kind = type(value)
    if kind in _ATOMS:
        return _plain_dumps(value, _PROTOCOL)
    if kind is tuple and len(value) == 2:
        args, kwargs = value
        if type(args) is tuple and type(kwargs) is dict and _only_atoms(map(type, args)) and (not kwargs or _plain_dict(kwargs)):
            return _plain_dumps(value, _PROTOCOL)
    if _is_plain(value, 3):
        return _plain_dumps(value, _PROTOCOL)
    if buffers is not None and "numpy" in sys.modules and _is_arrays(value):
        return _plain_dumps(value, _PROTOCOL, buffer_callback=_keeper(buffers))
    return _dumps_any(value, buffers, reference)


def loads(data: bytes | memoryview, *, buffers: Sequence[memoryview] = (), resolve: Callable[[int], Any] | None = None) -> Any:
    """Decode; see ``Serializer.loads``. Arrays made from ``buffers`` are views of them, and read-only."""
    # Inside another thread's or an outer call's resolving, `_resolve` must not find a resolver that was not meant for this value.
    if resolve is None and not _resolving:
        if not buffers:
            return _plain_loads(data)
        return _plain_loads(data, buffers=[buffer.toreadonly() for buffer in buffers])
    stack = _stack()
    stack.append(resolve)
    _resolving.append(None)
    try:
        return _plain_loads(data, buffers=[buffer.toreadonly() for buffer in buffers])
    finally:
        _resolving.pop()
        stack.pop()


def loads_code(data: bytes | memoryview, *, buffers: Sequence[memoryview] = ()) -> Any:
    """Decode an execution object. It is its worker's own: arrays in it can be changed where ``buffers`` can be written to."""
    return _plain_loads(data, buffers=buffers)


@contextmanager
def by_value(modules: Iterable[str]) -> Iterator[None]:
    """Within the block, functions and classes of these imported modules travel by value, as those of ``__main__`` always do.

    For modules the worker cannot import. cloudpickle's registry is global to the process, so the effect is seen by all threads.
    """
    import cloudpickle

    registered = []
    try:
        for name in modules:
            module = sys.modules[name]
            if name not in cloudpickle.list_registry_pickle_by_value():
                cloudpickle.register_pickle_by_value(module)
                registered.append(module)
        yield
    finally:
        for module in registered:
            cloudpickle.unregister_pickle_by_value(module)


# ---------------------------------------------------------------- plain values


def _plain_dict(value: dict[Any, Any]) -> bool:
    return _only_atoms(map(type, value)) and _only_atoms(map(type, value.values()))


def _is_plain(value: Any, depth: int) -> bool:
    """Whether it is nested at most ``depth`` deep and holds exact built-in types only, so that plain pickle writes it as is."""
    kind = type(value)
    if kind in _ATOMS:
        return True
    if kind is bytes:
        return len(value) < BIG
    if depth == 0:
        return False
    if kind is not dict and kind is not tuple and kind is not list:
        return False
    if len(value) > _MANY:
        return False
    if kind is dict:
        if not _only_atoms(map(type, value)):
            return False
        value = value.values()
    if _only_atoms(map(type, value)):
        return True
    depth -= 1
    return all(_is_plain(item, depth) for item in value)


def _is_arrays(value: Any) -> bool:
    """Whether it is an array, or a call with nothing but arrays and plain values: pickle writes them four times as quickly."""
    array = sys.modules["numpy"].ndarray

    def fits(item: Any) -> bool:
        kind = type(item)
        return kind in _ATOMS or (kind is array and not item.dtype.hasobject)

    if type(value) is array:
        return fits(value)
    if type(value) is not tuple or len(value) != 2:
        return False
    args, kwargs = value
    if type(args) is not tuple or type(kwargs) is not dict or len(args) + len(kwargs) > _MANY:
        return False
    return _only_atoms(map(type, kwargs)) and all(map(fits, args)) and all(map(fits, kwargs.values()))


# ---------------------------------------------------------------- everything else


def _dumps_any(value: object, buffers: list[Any] | None, reference: Callable[[object], int | None] | None) -> bytes:
    start = len(buffers) if buffers is not None else 0
    stream = io.BytesIO()
    try:
        _pickler(stream, buffers, reference).dump(value if buffers is None else _big_bytes_apart(value))
    except Exception as error:
        if buffers is not None:
            del buffers[start:]
        raise _diagnose(value, error, reference) from error
    return stream.getvalue()


def _big_bytes_apart(value: Any) -> Any:
    """Wrap large ``bytes``, which pickle only ever writes in band, where users put them: as the value or as an argument."""
    kind = type(value)
    if kind is bytes:
        return _BigBytes(value) if len(value) >= BIG else value
    if kind is not tuple or len(value) != 2:
        return value
    args, kwargs = value
    if type(args) is not tuple or type(kwargs) is not dict:
        return value
    known: dict[int, _BigBytes] = {}

    def wrap(item: Any) -> Any:
        if type(item) is not bytes or len(item) < BIG:
            return item
        return known.setdefault(id(item), _BigBytes(item))

    if any(type(item) is bytes and len(item) >= BIG for item in (*args, *kwargs.values())):
        return tuple(map(wrap, args)), {key: wrap(item) for key, item in kwargs.items()}
    return value


class _BigBytes:
    __slots__ = ("content",)

    def __init__(self, content: bytes) -> None:
        self.content = content

    def __reduce__(self) -> tuple[Any, ...]:
        return bytes, (pickle.PickleBuffer(self.content),)


_pickler_class: Any = None


def _pickler(stream: Any, buffers: list[Any] | None, reference: Callable[[object], int | None] | None) -> Any:
    global _pickler_class
    if _pickler_class is None:
        _pickler_class = _make_pickler_class()
    if buffers is None:
        return _pickler_class(stream, None, reference)

    return _pickler_class(stream, _keeper(buffers), reference)


def _keeper(buffers: list[Any]) -> Callable[[pickle.PickleBuffer], bool]:
    def keep(buffer: pickle.PickleBuffer) -> bool:
        raw = buffer.raw()
        if raw.nbytes < BIG:
            return True  # in band
        buffers.append(raw)
        return False

    return keep


def _make_pickler_class() -> Any:
    """cloudpickle's pickler with references. Made on first need, because importing cloudpickle costs 15 ms."""
    import cloudpickle

    parent_override = cloudpickle.Pickler.reducer_override

    class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
        def __init__(self, stream: Any, buffer_callback: Any, reference: Callable[[object], int | None] | None) -> None:
            super().__init__(stream, _PROTOCOL, buffer_callback)
            self._flame_reference = reference

        def reducer_override(self, obj: Any) -> Any:
            reference = self._flame_reference
            if reference is not None and type(obj).__module__ not in _BUILTIN and not isinstance(obj, type):
                index = reference(obj)
                if index is not None:
                    return _resolve, (index,)
            return parent_override(self, obj)

    return Pickler


# ---------------------------------------------------------------- references

_local = threading.local()
_resolving: list[None] = []
"""One entry for every `loads` with a resolver under way in any thread; append and pop are atomic."""


def _stack() -> list[Any]:
    try:
        return _local.stack  # type: ignore[no-any-return]
    except AttributeError:
        _local.stack = []
        return _local.stack  # type: ignore[no-any-return]


def _resolve(index: int) -> Any:
    """Stands in the pickle where a reference stood. Renaming it breaks the format."""
    stack = _stack()
    if not stack or stack[-1] is None:
        raise pickle.UnpicklingError(f"the value holds reference {index}, but nothing was given to resolve it")
    return stack[-1](index)


# ---------------------------------------------------------------- diagnosis


def _diagnose(value: object, error: Exception, reference: Any) -> CannotPickle:
    # A module of its own: workers that never fail never load it.
    from flame_serialize_cloudpickle._unpicklable_part import find_unpicklable_part

    def attempt(part: object) -> Exception | None:
        try:
            _pickler(_Sink(), [], reference).dump(part)
        except Exception as failure:
            return failure
        return None

    path, part, reason = find_unpicklable_part(value, error, attempt)
    kind = type(part)
    return CannotPickle(path, f"{kind.__module__}.{kind.__qualname__}", f"{type(reason).__name__}: {reason}")


class _Sink:
    def write(self, data: Any) -> int:
        return len(data)
