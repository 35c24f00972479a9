"""The execution object of stock clients' Runner sessions, in the worker: its source travels to the application's interpreter.

What ``python -m flamepy.runner.runpy`` does in a process of its own, without that process: opens the pickled context and requests of
the stock client, calls, and encodes results as its cache does. That interpreter has nothing of ours to import: standard library only,
Python 3.8 syntax.
"""

from __future__ import annotations

import importlib
import inspect
import io
import os
import pickle
import sys
import types
from typing import Any

_CONTEXTS = {"RunnerContext", "RunnerRequest"}
"""Classes of the client of which only the attributes matter; to import its package for them takes a second."""
_PICKLED = b"FLM\x00"
REFERENCE = b"REF\x00"
"""Marks an output that stands in the cache already."""


class Standin:
    """Takes the attributes of an object whose own class need not be imported."""

    def __new__(cls, *args: Any, **kwargs: Any) -> Standin:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class Opener(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if name in _CONTEXTS and module.partition(".")[0] == "flamepy":
            return type(name, (Standin,), {"__module__": module, "__qualname__": name})
        return super().find_class(module, name)


def opened(data: bytes) -> Any:
    return Opener(io.BytesIO(data)).load()


class Served:
    """One executor of a session.

    Args:
        context: the pickled RunnerContext. client: directory with the client's package, which goes behind the application's own.
    """

    def __init__(self, context: bytes, client: str) -> None:
        # Before the support directory, which is the last: what a stock client's program imports is the stock client.
        also = [client, *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
        sys.path[-1:-1] = [path for path in also if path and path not in sys.path]
        found = _context_of(context)
        target = getattr(found, "execution_object", None)
        if target is None:
            raise ValueError("the session's common data is a %s without an execution object" % type(found).__name__)
        self.target: Any = target() if inspect.isclass(target) else target
        self.stateful = bool(getattr(found, "stateful", False))

    def invoke(self, task_id: bytes, data: bytes | None) -> tuple[bytes, bytes | None, None]:
        """One call.

        Returns:
            Output (the encoded result), state (the encoded context, of a stateful object), failure.
        """
        if data is None:
            raise ValueError("Task input is None")
        request = opened(data)
        method = getattr(request, "method", None)
        if not hasattr(request, "method") or not (method is None or isinstance(method, str)):
            raise ValueError("Expected RunnerRequest in task input, got %s" % type(request).__qualname__)
        args = tuple(_resolved(value) for value in getattr(request, "args", None) or ())
        kwargs = {name: _resolved(value) for name, value in (getattr(request, "kwargs", None) or {}).items()}
        if method is None:
            if not callable(self.target):
                raise ValueError("Execution object is not callable: %s" % type(self.target))
            result = self.target(*args, **kwargs)
        else:
            if not hasattr(self.target, method):
                raise ValueError("Execution object has no method '%s'" % method)
            result = getattr(self.target, method)(*args, **kwargs)
        return _encoded(result), self._state() if self.stateful else None, None

    def _state(self) -> bytes:
        """What another executor of the session goes on from."""
        import cloudpickle

        state: bytes = cloudpickle.dumps({"execution_object": self.target, "stateful": True}, protocol=cloudpickle.DEFAULT_PROTOCOL)
        return _PICKLED + state


def _context_of(stored: bytes) -> Any:
    """The context in a cache object: what the client put there, pickled twice by some of them, or what `Served` has kept."""
    value = opened(stored[4:] if stored[:4] == _PICKLED else stored)
    if isinstance(value, bytes):
        value = opened(value)
    return types.SimpleNamespace(**value) if isinstance(value, dict) else value


def _resolved(value: Any) -> Any:
    """What a reference stands for; anything else as it is. References may come encoded, marked by their own length."""
    if isinstance(value, bytes):
        if len(value) < 5 or value[-1] or int.from_bytes(value[:4], "little") != len(value) or b"endpoint\0" not in value:
            return value
        core = _client()
        return core.get_object(core.ObjectRef.decode(value))
    kind = type(value)
    if kind.__name__ != "ObjectRef" or kind.__module__.partition(".")[0] != "flamepy":
        return value
    return _client().get_object(value)


def _client() -> Any:
    """The stock client's, by name: it is no part of this project, and stands in the worker only."""
    return importlib.import_module("flamepy.core")


def _encoded(value: Any) -> bytes:
    """As the client's ``put_object`` stores it; arrays and tables by that itself, which has formats of their own for them."""
    if type(value).__module__.partition(".")[0] in ("numpy", "pyarrow", "pandas", "polars") or hasattr(value, "to_arrow"):
        try:
            core = _client()
        except ImportError:
            pass
        else:
            reference: bytes = core.put_object(os.environ["FLAME_APPLICATION"] + "/" + os.environ["FLAME_SESSION"], value).encode()
            return REFERENCE + reference
    import cloudpickle

    return _PICKLED + bytes(cloudpickle.dumps(value, protocol=cloudpickle.DEFAULT_PROTOCOL))
