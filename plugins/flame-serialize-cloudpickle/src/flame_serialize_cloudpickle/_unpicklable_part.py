"""Finds the smallest part of a value that cannot be pickled, and says where it is. Standard library only: workers run it too."""

from __future__ import annotations

import functools
import time
import types
from collections.abc import Callable, Iterator
from typing import Any

_DEPTH = 12
_SECONDS = 2.0
_CHILDREN = 10_000


def find_unpicklable_part(value: object, error: Exception, attempt: Callable[[object], Exception | None]) -> tuple[str, object, Exception]:
    """Descend, from the value, into the first part that fails on its own.

    Args:
        attempt: tries to pickle a part and returns what went wrong, None for nothing.

    Returns:
        Where it is, the part, and what went wrong with it.
    """
    until = time.monotonic() + _SECONDS
    seen: set[int] = set()
    keep: list[object] = []  # parts made on the way: an id may not be reused while `seen` holds it
    path, part, reason = _root(value), value, error
    for _ in range(_DEPTH):
        seen.add(id(part))
        keep.append(part)
        found = _failing_child(part, path, attempt, seen, until)
        if found is None:
            break
        path, part, reason = found
    return path, part, reason


def _failing_child(
    part: object, path: str, attempt: Callable[[object], Exception | None], seen: set[int], until: float
) -> tuple[str, object, Exception] | None:
    for count, (name, child) in enumerate(_children(part, path)):
        if count >= _CHILDREN or time.monotonic() > until:
            return None
        if id(child) in seen:
            continue
        failure = attempt(child)
        if failure is not None:
            return name, child, failure
    return None


def _root(value: object) -> str:
    if _is_call(value):
        return "call"
    if isinstance(value, (type, types.FunctionType)):
        return value.__qualname__
    if isinstance(value, (tuple, list, dict, set, frozenset)) or type(value).__module__ == "builtins":
        return "value"
    return "self"


def _is_call(value: object) -> bool:
    return type(value) is tuple and len(value) == 2 and type(value[0]) is tuple and type(value[1]) is dict


def _children(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    """Name and value of each part pickle would go on to; names are expressions as the user would write them."""
    if path == "call" and _is_call(part):
        yield "args", part[0]
        yield "kwargs", part[1]
    elif isinstance(part, types.FunctionType):
        yield from _of_function(part, path)
    elif isinstance(part, types.MethodType):
        yield f"{path}.__self__", part.__self__
        yield f"{path}.__func__", part.__func__
    elif isinstance(part, functools.partial):
        yield f"{path}.func", part.func
        yield f"{path}.args", part.args
        yield f"{path}.keywords", part.keywords
    elif isinstance(part, type):
        yield from ((f"{path}.{name}", item) for name, item in vars(part).items() if not isinstance(item, types.GetSetDescriptorType))
        yield from ((f"base class {base.__qualname__}", base) for base in part.__bases__ if base is not object)
    elif isinstance(part, (staticmethod, classmethod)):
        yield path, part.__func__
    elif isinstance(part, property):
        yield from ((f"{path}.{name}", getattr(part, name)) for name in ("fget", "fset", "fdel"))
    elif not _refuses(part):
        yield from _of_instance(part, path)


def _refuses(part: Any) -> bool:
    """Whether the object itself says no: then no part of it is at fault."""
    own = next((vars(ancestor)["__reduce__"] for ancestor in type(part).__mro__ if "__reduce__" in vars(ancestor)), None)
    if not isinstance(own, types.FunctionType):
        return False
    try:
        own(part)
    except Exception:
        return True
    return False


def _of_function(part: types.FunctionType, path: str) -> Iterator[tuple[str, Any]]:
    where = f" of {part.__qualname__}"
    for name, cell in zip(part.__code__.co_freevars, part.__closure__ or (), strict=True):
        try:
            yield f"closure variable {name!r}{where}", cell.cell_contents
        except ValueError:  # not bound yet
            continue
    for code in _codes(part.__code__):
        for name in code.co_names:
            if name in part.__globals__:
                yield f"global variable {name!r}{where}", part.__globals__[name]
    for index, default in enumerate(part.__defaults__ or ()):
        yield f"default {index}{where}", default
    for name, default in (part.__kwdefaults__ or {}).items():
        yield f"default of {name!r}{where}", default
    yield from ((f"{path}.{name}", item) for name, item in vars(part).items())


def _codes(code: types.CodeType) -> Iterator[types.CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _codes(constant)


def _of_instance(part: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(part, dict):
        for key, item in part.items():
            yield f"{path}[{_short(key)}]", item
            yield f"key {_short(key)} of {path}", key
    elif isinstance(part, (list, tuple)):
        yield from ((f"{path}[{index}]", item) for index, item in enumerate(part))
    elif isinstance(part, (set, frozenset)):
        yield from ((f"element {_short(item)} of {path}", item) for item in part)
    if isinstance(part, BaseException):
        yield from ((f"{path}.args[{index}]", item) for index, item in enumerate(part.args))
    yield from ((f"{path}.{name}", item) for name, item in getattr(part, "__dict__", {}).items())
    for name in _slots(type(part)):
        try:
            yield f"{path}.{name}", getattr(part, name)
        except AttributeError:
            continue


def _slots(kind: type) -> Iterator[str]:
    for ancestor in kind.__mro__:
        names = vars(ancestor).get("__slots__", ())
        for name in [names] if isinstance(names, str) else names:
            if name not in ("__dict__", "__weakref__"):
                yield f"_{ancestor.__name__.lstrip('_')}{name}" if name.startswith("__") and not name.endswith("__") else name


def _short(key: object) -> str:
    text = repr(key)
    return text if len(text) <= 40 else text[:37] + "..."
