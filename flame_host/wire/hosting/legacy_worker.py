"""Opens the pickles of older clients, in the worker: its source travels to the application's interpreter.

That interpreter has nothing of ours to import and may be another version of Python: standard library only, Python 3.8 syntax.
"""

from __future__ import annotations

import importlib
import inspect
import io
import pickle
from typing import Any

_STANDING = {"RunnerContext", "RunnerRequest", "RunnerServiceKind", "ObjectRef", "ObjectExpr"}
"""Classes of older clients that are read even where their module is not to be had: only their attributes matter."""


class Standin:
    """Takes the attributes of an object whose own class is not importable here."""

    endpoint: str
    key: str
    version: int

    def __new__(cls, *args: Any, **kwargs: Any) -> Standin:
        return object.__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.__dict__.update(kwargs)

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {})


class Opener(pickle.Unpickler):
    """Reads what cloudpickle wrote."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return super().find_class(module, name)
        except (ImportError, AttributeError):
            if module.partition(".")[0] == "flamepy" and name in _STANDING:
                return type(name, (Standin,), {"__module__": module})
            raise


def opened(data: bytes) -> Any:
    """The object; pickles within pickles, as a client wraps what it puts into the cache, are opened too."""
    value = Opener(io.BytesIO(data)).load()
    return opened(value) if isinstance(value, bytes) and value[:1] == b"\x80" and value[-1:] == b"." else value


class Runner:
    """An older client's execution object, and how it wants to be called."""

    def __init__(self, data: bytes) -> None:
        context = opened(data)
        if not hasattr(context, "execution_object"):
            raise TypeError("common data holds a " + type(context).__qualname__ + " where a RunnerContext belongs")
        target = context.execution_object
        if target is None:
            raise ValueError("the RunnerContext has no execution object")
        self.target: Any = target() if inspect.isclass(target) else target

    def invoke(self, data: bytes) -> Any:
        """One call; ``data`` is a pickled RunnerRequest."""
        request = opened(data)
        if not hasattr(request, "method"):
            raise TypeError("task input holds a " + type(request).__qualname__ + " where a RunnerRequest belongs")
        args, kwargs = getattr(request, "args", None), getattr(request, "kwargs", None)
        whole = getattr(request, "input_object", None)
        if whole is not None:
            args = (whole,)
        args = tuple(_resolved(value) for value in args or ())
        kwargs = {name: _resolved(value) for name, value in (kwargs or {}).items()}
        function = self.target if request.method is None else getattr(self.target, request.method)
        return function(*args, **kwargs)


def _resolved(value: Any) -> Any:
    """What a reference stands for; anything else as it is. References may come encoded, marked by their own length."""
    if isinstance(value, bytes):
        if len(value) < 5 or value[-1] or int.from_bytes(value[:4], "little") != len(value) or b"endpoint\0" not in value:
            return value
        return _fetched(_ours("flame_host.wire.bson").decode_reference(value))
    kind = type(value)
    if kind.__name__ not in ("ObjectRef", "ObjectExpr") or kind.__module__.partition(".")[0] != "flamepy":
        return value
    if not isinstance(value, Standin):
        return importlib.import_module("flamepy.core").get_object(value)
    return _fetched(_ours("flame_host.api").ObjectRef(value.endpoint, value.key, value.version))


def _fetched(ref: Any) -> Any:
    """Read from the cache by the host's own plugins; the client library of the reference is not here to do it."""
    host = _ours("flame_host").Host()
    objects = _ours("flame_host.wire.hosting.objects").Objects(host, "local")
    try:
        payload = objects.get(ref)
        view = _ours("flame_host.api").buffer_view
        return host.serializer(payload.format).loads(payload.data, buffers=[view(buffer) for buffer in payload.buffers])
    finally:
        objects.close()


def _ours(name: str) -> Any:
    """A module of the host, which it lends to workers of its own Python version."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        message = "an argument is a reference; to resolve it here, the application needs flamepy among its dependencies"
        raise ImportError(message) from error
