"""Older clients' pickles, from the host's side: wrapped up unopened, for the worker to open (`legacy_worker`)."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

METHOD = "invoke"
"""The method of the execution object that takes a pickled request."""

_BUILD = "(exec(compile(source, '<flame_host legacy client>', 'exec'), names), names['Runner'](context))[1]"


class LegacyObject:
    """Stands for an older client's execution object; unpickled in a worker it is one.

    It carries the source of what opens it, because a class can be pickled by name only where its module is, and by value only for
    the same version of Python. Building it needs nothing but builtins.
    """

    def __init__(self, context: bytes) -> None:
        self._context = context

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        names = {"__name__": "flame_host_legacy_client"}
        return eval, (_BUILD, {"source": _source(), "context": self._context, "names": names})


@lru_cache(maxsize=1)
def _source() -> str:
    return Path(__file__).with_name("legacy_worker.py").read_text(encoding="utf-8")
