"""Which functions and classes a resource has, as far as this program has met them, and how a worker finds them again."""

from __future__ import annotations

import importlib
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flamepy._remote.objects import RemoteClass, RemoteFunction
    from flamepy._remote.resources import Resource

SERVED_RESOURCE = "FLAME_SERVED_RESOURCE"
"""Variable that tells a Runner's worker which resource it is."""

_by_resource: dict[str, list[RemoteFunction[..., Any] | RemoteClass]] = {}


def register(made: RemoteFunction[..., Any] | RemoteClass) -> None:
    _by_resource.setdefault(made.resource.name, []).append(made)


def dependencies_of(resource: Resource) -> list[str]:
    """What the functions of a resource need, as far as this program has met them."""
    found = [*resource.dependencies]
    for made in _by_resource.get(resource.name, ()):
        found += [*made.resource.dependencies, *made.dependencies]
    return list(dict.fromkeys(found))


def by_value(module: str) -> bool:
    """Whether code of a module cannot be imported by a worker, and travels itself."""
    if module == "__main__":
        return True
    loaded = sys.modules.get("cloudpickle")
    if loaded is None:
        return False
    registered = loaded.list_registry_pickle_by_value()
    parts = module.split(".")
    return any(".".join(parts[: count + 1]) in registered for count in range(len(parts)))


def find(module: str, qualname: str) -> Any:
    found: Any = importlib.import_module(module)
    for name in qualname.split("."):
        found = getattr(found, name)
    return found
