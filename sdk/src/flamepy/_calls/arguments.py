"""Wrong arguments are refused where the call is made, with the signature of what was called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

_MANY = 1 << 30
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Accepted:
    """Which arguments a callable takes; everything, when it does not tell.

    Attributes:
        least, most: positional arguments that do without any keywords. Whoever calls often compares these, and asks `check` only
            when they do not settle it.
    """

    __slots__ = ("_name", "_signature", "least", "most")

    def __init__(self, name: str, signature: inspect.Signature | None) -> None:
        self._name = name
        self._signature = signature
        self.least, self.most = (0, _MANY) if signature is None else _positional(signature)

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise the TypeError that calling it would raise."""
        if self._signature is None or (not kwargs and self.least <= len(args) <= self.most):
            return
        try:
            self._signature.bind(*args, **kwargs)
        except TypeError as error:
            raise TypeError(f"{self._name}{self._signature}: {error}") from None


def accepted_by(name: str, fn: Any, *, method: bool = False) -> Accepted:
    """Args:
    method: leave out the first parameter, which is bound where it runs.
    """
    try:
        # A wrapper may take other arguments than what it wraps: it is what will be called.
        signature = inspect.signature(fn, follow_wrapped=False)
    except (TypeError, ValueError):
        return Accepted(name, None)
    if method:
        parameters = list(signature.parameters.values())
        if parameters and parameters[0].kind in _POSITIONAL:
            signature = signature.replace(parameters=parameters[1:])
    return Accepted(name, signature)


def check_arguments(name: str, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """For a single call of anything."""
    known = _accepted_by_function if inspect.isfunction(fn) else accepted_by  # of others, being equal may mean anything
    known(name, fn).check(args, kwargs)


_accepted_by_function = functools.lru_cache(512)(accepted_by)


def _positional(signature: inspect.Signature) -> tuple[int, int]:
    least = most = 0
    for parameter in signature.parameters.values():
        required = parameter.default is parameter.empty
        if parameter.kind in _POSITIONAL:
            least, most = least + required, most + 1
        elif parameter.kind is parameter.VAR_POSITIONAL:
            most = _MANY
        elif parameter.kind is parameter.KEYWORD_ONLY and required:
            return 1, 0  # nothing will do without keywords
    return least, most
