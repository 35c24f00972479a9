"""``@remote`` in a program of one's own: one Runner for each resource, opened by the first call, closed when the program ends."""

from __future__ import annotations

import atexit
import functools
import hashlib
import os
import re
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flamepy._remote.registry import SERVED_RESOURCE, by_value, dependencies_of, find
from flamepy.flash import names

if TYPE_CHECKING:
    from flamepy._calls.service import RunnerService
    from flamepy._remote.objects import RemoteClass, RemoteFunction
    from flamepy._remote.resources import Resource
    from flamepy._runner.runner import Runner

# A worker imports this before the program's modules, which may be written for another SDK, installed there or not.
names.install(first=SERVED_RESOURCE in os.environ)

_lock = threading.RLock()
_runners: dict[str, Runner] = {}
_services: dict[object, RunnerService[..., Any]] = {}


class _Served:
    """What travels to the worker: where the function or class is found there, or itself when it cannot be imported."""

    def __init__(self, remote: RemoteFunction[..., Any] | RemoteClass) -> None:
        self._original: Any = remote.__flame_original__
        # Instance attributes under these names: whoever asks an object where it comes from gets the function's answer.
        self.__module__ = self._original.__module__
        self.__qualname__ = self._original.__qualname__

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ if by_value(self.__module__) else {**self.__dict__, "_original": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _found(self) -> Any:
        if self._original is None:
            found = find(self.__module__, self.__qualname__)
            self._original = getattr(found, "__flame_original__", found)
        return self._original


class ServedFunction(_Served):
    @property
    def __wrapped__(self) -> Any:  # by which the service sees that it is a function, and stateless
        return self._found()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._found()(*args, **kwargs)


class ServedInstance(_Served):
    """Stands for an instance that is made where its methods are called, when the first is."""

    def __init__(self, remote: RemoteClass, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        super().__init__(remote)
        self._arguments = (args, dict(kwargs))

    @functools.cached_property
    def _instance(self) -> Any:
        args, kwargs = self._arguments
        return self._found()(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._instance, name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._instance(*args, **kwargs)


def service_of_function(remote: RemoteFunction[..., Any]) -> RunnerService[..., Any]:
    """The service of a function, opened if need be."""
    return _service(remote, lambda: ServedFunction(remote), remote.resource)


def service_of_instance(remote: RemoteClass, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> RunnerService[..., Any]:
    """The service of an instance: as in a deployed worker, equal constructor arguments are the same instance."""
    import cloudpickle  # type: ignore[import-untyped,unused-ignore]

    digest = hashlib.sha256(cloudpickle.dumps((args, sorted(kwargs.items())))).digest()
    return _service((remote, digest), lambda: ServedInstance(remote, args, kwargs), remote.resource)


def _service(key: object, make: Callable[[], Any], resource: Resource) -> RunnerService[..., Any]:
    with _lock:
        service = _services.get(key)
        if service is None or service._closed:
            served = make()
            options: dict[str, Any] = {}
            if isinstance(served, ServedFunction):
                fewest, most = resource.workers  # type: ignore[misc]
                options = {"min_instances": fewest, "max_instances": most}
            service = _services[key] = _runner(resource).service(served, **options)
        return service


def _runner(resource: Resource) -> Runner:
    runner = _runners.get(resource.name)
    if runner is None:
        from flamepy._runner.runner import Runner

        safe = re.sub(r"[^A-Za-z0-9._-]", "-", f"{Path.cwd().name}-{resource.name}").lstrip("._-")
        runner = Runner(
            f"{safe[:100]}-{os.getpid()}",
            dependencies=dependencies_of(resource) or None,
            environments={**resource.env, SERVED_RESOURCE: resource.name},
        )
        _runners[resource.name] = runner.open()
    return runner


@atexit.register
def close_resources() -> None:
    """Close the Runners that calls have opened. The next call opens another; at the end of the program it is done anyway."""
    with _lock:
        runners = list(_runners.values())
        _runners.clear()
        _services.clear()
    for runner in runners:
        runner.close(wait=False)


def _forget() -> None:
    """In a forked child: the workers are the parent's."""
    global _lock
    _lock = threading.RLock()
    _runners.clear()
    _services.clear()


os.register_at_fork(after_in_child=_forget)
