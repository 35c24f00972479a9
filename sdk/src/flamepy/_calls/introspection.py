"""What there is to be called of an object that is served: its methods, their signatures, its name."""

from __future__ import annotations

import difflib
import functools
import inspect
import types
from collections.abc import Iterator
from typing import Any

_FUNCTIONS = (
    types.FunctionType,
    types.BuiltinFunctionType,
    types.MethodType,
    types.MethodWrapperType,
    types.MethodDescriptorType,
    functools.partial,
)


def is_function(execution_object: object) -> bool:
    """Whether it is stateless by nature; classes and other objects have a state to keep."""
    return isinstance(execution_object, _FUNCTIONS) or (
        # What wraps a function and keeps nothing a caller could see: functools.lru_cache, numpy's ufuncs.
        callable(execution_object) and not inspect.isclass(execution_object) and inspect.isroutine(inspect.unwrap(execution_object))
    )


def is_called_itself(execution_object: object) -> bool:
    return hasattr(execution_object, "__call__") if not inspect.isclass(execution_object) else "__call__" in _members(execution_object)  # noqa: B004


def public_methods(execution_object: object) -> Iterator[tuple[str, Any]]:
    """Name and function of each method to be wrapped. Properties are not touched: reading one runs code."""
    if is_function(execution_object):
        return
    owner = execution_object if inspect.isclass(execution_object) else type(execution_object)
    members = dict(_members(owner))
    if not inspect.isclass(execution_object):
        members |= getattr(execution_object, "__dict__", {})
    for name, member in sorted(members.items()):
        if name.startswith("_") or isinstance(member, (property, functools.cached_property)) or inspect.isclass(member):
            continue
        function = member.__func__ if isinstance(member, (staticmethod, classmethod)) else member
        if callable(function):
            yield name, function


def _members(owner: type) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for ancestor in reversed(owner.__mro__[:-1]):
        found.update(vars(ancestor))
    return found


def name_of(execution_object: Any) -> str:
    if isinstance(execution_object, functools.partial):
        return f"partial({name_of(execution_object.func)})"
    named = execution_object if hasattr(execution_object, "__qualname__") else type(execution_object)
    return str(named.__qualname__).replace("<locals>.", "").rpartition(".<locals>.")[2]


def signature_of(execution_object: object, method: str, original: Any) -> inspect.Signature:
    """As the caller sees it: without ``self``."""
    signature = inspect.signature(original)
    if not is_bound_there(execution_object, method):
        return signature
    return signature.replace(parameters=list(signature.parameters.values())[1:])


def is_bound_there(execution_object: object, method: str) -> bool:
    """Whether the first parameter is filled in where it runs."""
    owner = execution_object if inspect.isclass(execution_object) else type(execution_object)
    kind = inspect.getattr_static(owner, method, None) if method else None
    return kind is not None and not isinstance(kind, staticmethod)


def no_method(owner: str, name: str, known: list[str]) -> AttributeError:
    near = difflib.get_close_matches(name, known, 1)
    advice = f"; did you mean {near[0]!r}?" if near else f"; it has: {', '.join(sorted(known)) or 'none'}"
    return AttributeError(f"{owner} has no public method {name!r}{advice}")
