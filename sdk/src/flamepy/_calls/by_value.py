"""Which code travels by value: what a worker could not import.

A worker finds modules of the package under its source directories, and what is installed. A module that lies elsewhere - beside a
script outside the project, in a test directory, on PYTHONPATH - is sent along with the functions and classes that come from it.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import sysconfig
import types
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flame_host.api import Serializer

if TYPE_CHECKING:
    from flamepy._package.shipment import Shipment

_OURS = ("flamepy", "flame_host", "flame_", "cloudpickle")


class ByValue:
    """Until closed, modules added travel by value, with this project's serializer.

    Args:
        shipment: what the worker has of this machine's files; None for nothing.
    """

    def __init__(self, serializer: Serializer, shipment: Shipment | None) -> None:
        self._serializer = serializer
        self._shipment = shipment
        self._stack = contextlib.ExitStack()
        self._known: set[str] = set()

    def add(self, execution_object: Any) -> None:
        """Look at the module of an object, and at those its module uses."""
        waiting = list(_modules_of(execution_object))
        found = []
        while waiting:
            name = waiting.pop()
            module = sys.modules.get(name)
            if name in self._known or module is None:
                continue
            self._known.add(name)
            if not self._importable(name, module):
                found.append(name)
                waiting += _used_by(module)
        if found:
            self._stack.enter_context(self._serializer.by_value(found))

    def _importable(self, name: str, module: types.ModuleType) -> bool:
        file = getattr(module, "__file__", None)
        top = name.partition(".")[0]
        if name == "__main__" or file is None or top.startswith(_OURS) or top in sys.stdlib_module_names:
            return True  # __main__ travels by value anyway
        path = Path(file).resolve()
        if any(path.is_relative_to(place) for place in _installed()):
            return True
        shipment = self._shipment
        if shipment is None or not shipment.carries(path):
            return False
        place = name.replace(".", "/")
        return any(path in (source / f"{place}.py", source / place / "__init__.py") for source in shipment.places)

    def close(self) -> None:
        self._stack.close()


@functools.cache
def _installed() -> tuple[Path, ...]:
    paths = sysconfig.get_paths()
    return tuple({Path(paths[name]).resolve() for name in ("purelib", "platlib", "stdlib", "platstdlib")})


def _modules_of(execution_object: Any) -> Iterator[str]:
    if isinstance(execution_object, functools.partial):
        yield from _modules_of(execution_object.func)
        return
    if isinstance(execution_object, types.MethodType):
        yield from _modules_of(execution_object.__self__)
    kind = execution_object if isinstance(execution_object, type) else type(execution_object)
    for ancestor in kind.__mro__:
        yield ancestor.__module__
    module = getattr(execution_object, "__module__", None)
    if isinstance(module, str):
        yield module


def _used_by(module: types.ModuleType) -> Iterator[str]:
    for value in list(vars(module).values()):
        if isinstance(value, types.ModuleType):
            yield value.__name__
        elif isinstance(value, (type, types.FunctionType)) and isinstance(value.__module__, str):
            yield value.__module__
