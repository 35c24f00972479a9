"""``@remote``: a function or class that belongs to a resource, wherever the program happens to run.

The same call goes three ways. In a program of one's own it runs as a Runner service of its resource. In a deployed worker a function
of the same endpoint is called directly, and one of another endpoint over HTTP, as the manifest says.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from flame_host.api import ConfigError
from flamepy._remote.objects import RemoteClass, RemoteFunction
from flamepy._remote.resources import Resource

__all__ = ["RemoteClass", "RemoteFunction", "decorate", "remote"]

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

DEFAULT_RESOURCE = Resource(name="default")


class Decorator(Protocol):
    """What ``remote(resource)`` gives."""

    @overload
    def __call__(self, target: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap]  # a class is callable, too
    @overload
    def __call__(self, target: Callable[P, R], /) -> RemoteFunction[P, R]: ...
    def __call__(self, target: Any, /) -> Any: ...


@overload
def remote(resource_config: type[T], /) -> type[T]: ...  # type: ignore[overload-overlap]
@overload
def remote(
    resource_config: Resource | None = None,
    *,
    dependencies: Iterable[str] | None = None,
    system_dependencies: Iterable[str] | None = None,
    local: bool = False,
) -> Decorator: ...
@overload
def remote(resource_config: Callable[P, R], /) -> RemoteFunction[P, R]: ...


def remote(
    resource_config: Any = None,
    *,
    dependencies: Iterable[str] | None = None,
    system_dependencies: Iterable[str] | None = None,
    local: bool = False,
) -> Any:
    """Say which resource a function or class runs on: ``@remote(resource)``, or ``@remote`` for the resource named ``default``.

    Args:
        dependencies: requirements (PEP 508) on top of the resource's.
        system_dependencies: packages of the operating system; written to the manifest for whoever builds the image.
        local: leave the function as it is; useful to switch one off for a while.
    """
    if resource_config is not None and not isinstance(resource_config, Resource):
        return decorate(resource_config, None, ())
    resource = resource_config or DEFAULT_RESOURCE

    def put(target: Any) -> Any:
        return target if local else decorate(target, resource, tuple(dependencies or ()))

    return put


def decorate(
    target: Any,
    resource: Resource | None,
    dependencies: tuple[str, ...],
    *,
    awaited: bool = False,
    route: tuple[str, str] | None = None,
) -> Any:
    """Put a function or class on a resource.

    Args:
        resource: None for the one named ``default``.
        awaited: its calls are awaited, even if it is not ``async``.
        route: HTTP method and path it answers.
    """
    if isinstance(target, (RemoteFunction, RemoteClass)):
        raise ConfigError(f"{target.__qualname__} is decorated with @remote twice")
    resource = resource or DEFAULT_RESOURCE
    if inspect.isclass(target):
        _name(resource, target)
        if route is not None:
            raise ConfigError(f"{target.__qualname__} is a class; a route is answered by a function")
        return RemoteClass(target, resource, dependencies, awaited)
    if _is_function(target):
        _name(resource, target, route)
        return RemoteFunction(target, resource, dependencies, awaited, route)
    raise ConfigError(
        f"remote() was given {target!r}, which is neither a resource nor a function", hint='write  @remote(Resource(name="gpu-worker"))'
    )


def _name(resource: Resource, target: Any, route: tuple[str, str] | None = None) -> None:
    """Give a resource without a name that of its variable, or of what it is first put on, as the build does."""
    if resource.name:
        return
    variable = ""
    if route is not None or resource.named_after == "variable":
        names = getattr(inspect.unwrap(target), "__globals__", None) or vars(sys.modules[target.__module__])
        variable = next((name for name, value in names.items() if getattr(value, "resource", value) is resource), "")
    object.__setattr__(resource, "name", variable or target.__name__)


def _is_function(target: Any) -> bool:
    """Also one inside of another decorator, such as functools.cache."""
    return callable(target) and inspect.isfunction(inspect.unwrap(target))
