"""What ``@remote`` makes of a function or class, and which way its calls go."""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast

from flame_host.api import ConfigError
from flame_host.serverless.manifest import who_am_i
from flamepy._remote.registry import SERVED_RESOURCE, by_value, find, register

if TYPE_CHECKING:
    from types import CodeType, FrameType

    from flame_host.serverless.routing import Router
    from flamepy._calls.future import ObjectFuture
    from flamepy._remote.resources import Resource

P = ParamSpec("P")
R = TypeVar("R")


class RemoteFunction(Generic[P, R]):
    """A function of a resource. Calling it gives what the function gives: a value, or something to await if it is ``async``."""

    def __init__(
        self,
        original: Callable[P, R],
        resource: Resource,
        dependencies: tuple[str, ...] = (),
        awaited: bool = False,
        route: tuple[str, str] | None = None,
    ) -> None:
        self.__flame_original__ = original
        self.resource = resource
        self.dependencies = dependencies
        self.awaited = awaited
        self.route = route
        functools.update_wrapper(self, original)
        self._kind = kind_of(original, awaited)
        register(self)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        where = _where(self.resource)
        if where == "elsewhere":
            router = _router()
            resource, name = router.home_of(self.__module__, self.__qualname__, self.resource.name)
            where = "here" if router.is_here(resource) else where
        if where == "here":
            here = functools.partial(self.__flame_original__, *args, **kwargs)
            return cast(R, called_here(self._kind, self.__flame_original__, here, sys._getframe(1)) if self.awaited else here())
        if where == "elsewhere":
            return cast(R, _shaped(self._kind, functools.partial(router.call, resource, name, args, kwargs)))
        return cast(R, _of_future(self._kind, lambda: self.submit(*args, **kwargs)))

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> ObjectFuture[R]:
        """Call it on its resource and go on at once.

        Raises:
            ConfigError: in a deployed worker, which has no way to wait for jobs of its own.
        """
        _refuse_if_deployed(self.__qualname__, self.resource.name)
        from flamepy._remote.services import service_of_function

        return cast("ObjectFuture[R]", service_of_function(self)(*args, **kwargs))

    def local(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here and now, in this process."""
        return self.__flame_original__(*args, **kwargs)

    def __reduce__(self) -> Any:
        return _reduced(self)

    def __repr__(self) -> str:
        return f"<remote function {self.__module__}.{self.__qualname__} of resource {self.resource.name!r}>"

    if TYPE_CHECKING:
        __name__: str
        __qualname__: str


class RemoteClass:
    """A class of a resource. Instances with equal constructor arguments are one object in each of its workers."""

    def __init__(self, original: type, resource: Resource, dependencies: tuple[str, ...] = (), awaited: bool = False) -> None:
        self.__flame_original__ = original
        self.resource = resource
        self.dependencies = dependencies
        self.awaited = awaited
        functools.update_wrapper(self, original, updated=())
        register(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        where = _where(self.resource)
        if where == "elsewhere":
            resource, _ = _router().home_of(self.__module__, self.__qualname__, self.resource.name)
            where = "here" if _router().is_here(resource) else where
        if where == "here":
            if self.awaited:
                _make_awaitable(self.__flame_original__)
            return self.__flame_original__(*args, **kwargs)
        inspect.signature(self.__flame_original__).bind(*args, **kwargs)  # a mistake shows here, not at the first method call
        return RemoteInstance(self, args, kwargs)

    def local(self, *args: Any, **kwargs: Any) -> Any:
        """Make an instance here, in this process."""
        return self.__flame_original__(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):  # asked before anything is set, when it is unpickled or inspected
            raise AttributeError(name)
        return getattr(self.__flame_original__, name)

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(instance, self.__flame_original__) or (isinstance(instance, RemoteInstance) and instance._remote is self)

    def __or__(self, other: Any) -> Any:
        """As in a hint, ``Worker | None``."""
        return self.__flame_original__ | other

    def __ror__(self, other: Any) -> Any:
        return other | self.__flame_original__

    def __mro_entries__(self, bases: tuple[object, ...]) -> tuple[type]:
        return (self.__flame_original__,)

    def __reduce__(self) -> Any:
        return _reduced(self)

    def __repr__(self) -> str:
        return f"<remote class {self.__module__}.{self.__qualname__} of resource {self.resource.name!r}>"

    if TYPE_CHECKING:
        __name__: str
        __qualname__: str


class RemoteInstance:
    """An instance that lives in a worker of its resource; its methods are called there."""

    def __init__(self, remote_class: RemoteClass, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self._remote = remote_class
        self._constructor = (args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return self._method(name)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._method("__call__")(*args, **kwargs)

    def _method(self, name: str) -> Callable[..., Any]:
        original = self._remote.__flame_original__
        member = inspect.getattr_static(original, name, None)
        function = getattr(member, "__func__", member)
        if not callable(function):
            found = "is no method" if member is not None else "does not exist"
            raise AttributeError(f"{name!r} of remote class {original.__qualname__} {found}; only methods can be used from afar")

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            return self._call(name, kind_of(function, self._remote.awaited), args, kwargs)

        return call

    def _call(self, name: str, kind: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        remote_class = self._remote
        if who_am_i():
            router = _router()
            resource, registered = router.home_of(remote_class.__module__, remote_class.__qualname__, remote_class.resource.name)
            call = functools.partial(router.call_method, resource, registered, self._constructor, name, args, kwargs)
            return _shaped(kind, call)
        from flamepy._remote.services import service_of_instance

        service = service_of_instance(remote_class, *self._constructor)
        return _of_future(kind, lambda: service.call("" if name == "__call__" else name, *args, **kwargs))

    def __repr__(self) -> str:
        args, kwargs = self._constructor
        given = ", ".join([*map(repr, args), *(f"{key}={value!r}" for key, value in kwargs.items())])
        return f"<{self._remote.__qualname__}({given}) on resource {self._remote.resource.name!r}>"


# ---------------------------------------------------------------------- where a call goes


def _where(resource: Resource) -> str:
    """``here``, ``elsewhere`` (by the manifest), or ``service``."""
    if os.environ.get(SERVED_RESOURCE) == resource.name:
        return "here"
    return "elsewhere" if who_am_i() else "service"


def _refuse_if_deployed(function: str, resource: str) -> None:
    if who_am_i():
        raise ConfigError(
            f"{function}.submit() is for a program of one's own; this is a worker of endpoint {who_am_i()!r}",
            hint=f"call {function}(…) and wait, several at once with asyncio.gather, or post to /run of endpoint {resource!r}",
        )


def called_here(kind: str, original: Any, call: Callable[[], Any], caller: FrameType) -> Any:
    """Call a function of this very worker, for a program that may await it although it is not ``async``."""
    if kind == "async" and not inspect.iscoroutinefunction(original) and _awaits(caller.f_code, caller.f_lasti):
        return _finished(call)
    return call()


async def _finished(call: Callable[[], Any]) -> Any:
    return call()


@functools.lru_cache(4096)
def _awaits(code: CodeType, at: int) -> bool:
    """Whether the instruction after the one at that place takes something to await."""
    import dis

    after = (step for step in dis.get_instructions(code) if step.offset > at)
    return next((step.opname for step in after if step.opname != "CACHE"), "") == "GET_AWAITABLE"


@functools.cache
def _make_awaitable(original: type) -> None:
    """Let methods that are not ``async`` be awaited, for instances in this very worker; whoever does not await gets what they give."""
    for name in dir(original):
        member = inspect.getattr_static(original, name)
        if inspect.isfunction(member) and not name.startswith("_") and kind_of(member) == "function":
            setattr(original, name, _awaitable(member))


def _awaitable(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    def either(*args: Any, **kwargs: Any) -> Any:
        return called_here("async", method, functools.partial(method, *args, **kwargs), sys._getframe(1))

    either.__signature__ = inspect.signature(method)  # type: ignore[attr-defined]  # asked for without what is wrapped
    return either


@functools.cache
def _router_for(me: str, endpoints: str) -> Router:
    from flame_host.serverless.routing import Router

    return Router()


def _router() -> Router:
    return _router_for(who_am_i(), os.environ.get("FLAME_ENDPOINTS", ""))


def kind_of(function: Any, awaited: bool = False) -> str:
    """What its calls give: a value, something to await, or something to go through.

    Args:
        awaited: the program awaits it even if it is not ``async``.
    """
    if inspect.isasyncgenfunction(function):
        return "async generator"
    if inspect.isgeneratorfunction(function):
        return "generator"
    return "async" if awaited or inspect.iscoroutinefunction(function) else "function"


def _shaped(kind: str, call: Callable[[], Any]) -> Any:
    """Make a blocking call look like what the function is."""
    if kind == "function":
        return call()
    if kind == "generator":
        return iter(call())
    if kind == "async":
        return asyncio.to_thread(call)

    async def items() -> Any:
        for item in await asyncio.to_thread(call):
            yield item

    return items()


def _of_future(kind: str, submit: Callable[[], ObjectFuture[Any]]) -> Any:
    if kind == "function":
        return submit().get()
    if kind == "generator":
        return iter(submit())
    if kind == "async generator":
        return aiter(submit())

    async def value() -> Any:
        # Making the first call may mean installing an environment: not on the caller's loop.
        return await (await asyncio.to_thread(submit))

    return value()


# ---------------------------------------------------------------------- being found again


def _reduced(made: RemoteFunction[..., Any] | RemoteClass) -> Any:
    original = made.__flame_original__
    if by_value(original.__module__):
        return type(made), (original, made.resource, made.dependencies, made.awaited)
    return _restored, (type(made), original.__module__, original.__qualname__, made.resource, made.dependencies, made.awaited)


def _restored(kind: Any, module: str, qualname: str, resource: Resource, dependencies: tuple[str, ...], awaited: bool = False) -> Any:
    found = find(module, qualname)
    return found if isinstance(found, kind) else kind(found, resource, dependencies, awaited)
