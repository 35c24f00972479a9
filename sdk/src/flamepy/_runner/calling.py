"""What runs in the worker when a Runner is used as an executor: it calls whatever it is sent.

This module travels by value, so that nothing of the client's needs to be installed there: standard library only.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

_MOST_KNOWN = 1024


class Caller:
    """Calls a callable that came along, or one it was sent before.

    Args:
        codec: name of the module that reads the session's format, as `flame_host.api.Serializer.codec` gives it.
    """

    def __init__(self, codec: str) -> None:
        self.__qualname__ = "submit"  # what errors and log lines call it
        self._codec = codec
        self._known: dict[bytes, Callable[..., Any]] = {}

    def __call__(self, key: bytes, code: Any, /, *args: Any, **kwargs: Any) -> Any:
        """Args:
        key: names the encoded function or class that ``code`` is; empty when ``code`` is the callable itself.
        """
        if not key:
            return code(*args, **kwargs)
        function = self._known.get(key)
        if function is None:
            if len(self._known) >= _MOST_KNOWN:
                self._known.clear()
            function = self._known[key] = importlib.import_module(self._codec).loads(code)
        return function(*args, **kwargs)
