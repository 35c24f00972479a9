"""``@remote``: a function or class that belongs to a resource, wherever the program happens to run.

The same call goes three ways. In a program of one's own it runs as a Runner service of its resource. In a deployed worker a function
of the same endpoint is called directly, and one of another endpoint over HTTP, as the manifest says.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import Any, ParamSpec, Protocol, TypeVar, overload

from flame_host.api import ConfigError
from flamepy._remote.objects import RemoteClass, RemoteFunction
from flamepy._remote.resources import Resource

__all__ = ["RemoteClass", "RemoteFunction", "remote"]

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
        if inspect.isclass(resource_config) or _is_function(resource_config):
            return _decorate(resource_config, DEFAULT_RESOURCE, ())
        raise ConfigError(
            f"remote() was given {resource_config!r}, which is neither a resource nor a function",
            hint='write  @remote(Resource(name="gpu-worker"))',
        )
    resource = resource_config or DEFAULT_RESOURCE

    def decorate(target: Any) -> Any:
        return target if local else _decorate(target, resource, tuple(dependencies or ()))

    return decorate


def _decorate(target: Any, resource: Resource, dependencies: tuple[str, ...]) -> Any:
    if isinstance(target, (RemoteFunction, RemoteClass)):
        raise ConfigError(f"{target.__qualname__} is decorated with @remote twice")
    if inspect.isclass(target):
        return RemoteClass(target, resource, dependencies)
    if _is_function(target):
        return RemoteFunction(target, resource, dependencies)
    raise ConfigError(f"@remote goes on functions and classes, not on {target!r}")


def _is_function(target: Any) -> bool:
    """Also one inside of another decorator, such as functools.cache."""
    return callable(target) and inspect.isfunction(inspect.unwrap(target))
