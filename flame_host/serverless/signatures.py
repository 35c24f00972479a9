"""Whether a call could be made at all, told by the number and names of its arguments, before any of them is read.

Reading a pickle runs code. A job that does not fit must not get that far.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flame_host.serverless.execution import original


def check_arguments(registered: Any, job_input: Mapping[str, Any]) -> None:
    """Compare a job's arguments, still encoded, with what is to be called.

    What cannot be told in advance, such as the signature of a function written in C, is left to the call.

    Raises:
        TypeError: too many arguments, too few, or one that is not known.
    """
    target = original(registered)
    _check(target, job_input.get("args"), job_input.get("kwargs"))
    if job_input.get("execution_type") != "class" or not inspect.isclass(target):
        return
    name = job_input.get("method_name") or "__call__"
    member = inspect.getattr_static(target, name, None) if isinstance(name, str) else None
    given = job_input.get("method_args"), job_input.get("method_kwargs")
    if isinstance(member, staticmethod):
        _check(member.__func__, *given)
    elif isinstance(member, classmethod):
        _check(member.__func__, *given, bound=True)
    elif inspect.isfunction(member):
        _check(member, *given, bound=True)


def _check(target: Callable[..., Any], args: object, kwargs: object, *, bound: bool = False) -> None:
    args, kwargs = [] if args is None else args, {} if kwargs is None else kwargs
    if not isinstance(args, Sequence) or isinstance(args, (str, bytes)) or not isinstance(kwargs, Mapping):
        return  # reading them says what they should be
    signature = signature_of(target)
    if signature is None:
        return
    try:
        signature.bind(*([None] if bound else []), *args, **kwargs)
    except TypeError as error:
        raise TypeError(f"{getattr(target, '__qualname__', target)}(): {error}") from None


def signature_of(target: Callable[..., Any]) -> inspect.Signature | None:
    """What it can be called with; None when it does not say."""
    try:
        # Not what a decorator wraps: it may well supply arguments itself.
        return inspect.signature(target, follow_wrapped=False)
    except (TypeError, ValueError):
        pass
    try:
        return inspect.signature(target)  # functools.cache is written in C, and says nothing itself
    except (TypeError, ValueError):
        return None
