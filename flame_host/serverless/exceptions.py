"""Exceptions on their way between endpoints, with their own type.

Python pickles an exception as a call of its class with ``args``, which fails for every class whose constructor takes something else. Here
it travels as what it is: class, arguments, attributes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["Carried", "rebuilt"]


class Carried:
    """Stands for an exception when it is pickled; what is read again is the exception."""

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def __reduce__(self) -> Any:
        return rebuilt, (type(self._error), self._error.args, dict(vars(self._error)))


def rebuilt(kind: type[BaseException], args: tuple[Any, ...], attributes: Mapping[str, Any]) -> BaseException:
    """An exception of that class, made without its constructor."""
    error = kind.__new__(kind, *args)
    error.args = args
    vars(error).update(attributes)
    return error
