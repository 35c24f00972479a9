"""A function, class or instance whose calls run elsewhere."""

from __future__ import annotations

import contextlib
import inspect
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, cast, overload

from flame_host.api import CallOptions, ClosedError, SessionInfo
from flamepy._calls.arguments import Accepted, accepted_by
from flamepy._calls.callbacks import callback_thread
from flamepy._calls.future import ObjectFuture
from flamepy._calls.introspection import is_bound_there, is_called_itself, name_of, no_method, public_methods, signature_of
from flamepy._calls.submission import CallSite

if TYPE_CHECKING:
    from typing import TypeAlias

    from flame_host.api import ObjectRef
    from flamepy._calls.memo import Memo
    from flamepy._calls.session import SessionHandle

    _Pending: TypeAlias = ObjectFuture[Any] | ObjectRef

P = ParamSpec("P")
R = TypeVar("R")


class RemoteMethod(Generic[P, R]):
    """One method of a service, or the service itself when it is called: calling it gives a future at once."""

    def __init__(self, service: RunnerService[..., Any], method: str, original: Any, options: CallOptions | None = None) -> None:
        self._service = service
        self._site = service._site
        self._method = method
        self._options = options
        self._accepted = _accepted(service, method, original)
        self.__wrapped__ = original
        self.__name__ = method or getattr(original, "__name__", type(original).__name__)
        self.__doc__ = inspect.getdoc(original)
        with contextlib.suppress(TypeError, ValueError):
            self.__signature__ = signature_of(service._object, method, original)

    # A future or reference stands for its value, which a ParamSpec cannot say; where one is among the first, the rest is not checked.
    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectFuture[R]: ...
    @overload
    def __call__(self, first: _Pending, /, *rest: Any, **kwargs: Any) -> ObjectFuture[R]: ...
    @overload
    def __call__(self, first: Any, second: _Pending, /, *rest: Any, **kwargs: Any) -> ObjectFuture[R]: ...
    @overload
    def __call__(self, first: Any, second: Any, third: _Pending, /, *rest: Any, **kwargs: Any) -> ObjectFuture[R]: ...

    def __call__(self, /, *args: Any, **kwargs: Any) -> ObjectFuture[R]:
        accepted = self._accepted
        if kwargs or not accepted.least <= len(args) <= accepted.most:
            accepted.check(args, kwargs)
        return self._site.call(self._method, args, kwargs, self._options)

    def map(self, *iterables: Iterable[Any], **how: Any) -> Iterator[R]:
        """See `RunnerService.map`."""
        from flamepy._calls.map import length_of, map_calls

        return map_calls(self, zip(*iterables, strict=False), length_of(iterables), **how)

    def starmap(self, arguments: Iterable[tuple[Any, ...]], **how: Any) -> Iterator[R]:
        """See `RunnerService.starmap`."""
        from flamepy._calls.map import length_of, map_calls

        return map_calls(self, arguments, length_of((arguments,)), **how)

    def options(
        self, *, timeout: float | None = None, retries: int | None = None, priority: int | None = None, name: str | None = None
    ) -> RemoteMethod[P, R]:
        """The same method with other options; see `CallOptions`."""
        return RemoteMethod(self._service, self._method, self.__wrapped__, CallOptions(timeout, retries, priority, name))

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here and now, in this process, on this process's own copy: for a debugger."""
        target = self._service._local_object()
        return cast(R, (getattr(target, self._method) if self._method else target)(*args, **kwargs))

    def __repr__(self) -> str:
        return f"<remote method {self._service._name}.{self.__name__} on {self._service._endpoint}>"


class _Methods:
    """Every method of a service, also those whose names the service itself uses: ``svc.methods.close()``."""

    def __init__(self, methods: dict[str, RemoteMethod[..., Any]], owner: str) -> None:
        self.__dict__.update(methods)
        self._owner = owner

    def __getattr__(self, name: str) -> RemoteMethod[..., Any]:
        raise no_method(self._owner, name, [known for known in self.__dict__ if not known.startswith("_")])


class RunnerService(Generic[P, R]):
    """The execution object of a session, with a wrapper for each of its public methods.

    Made by ``Runner.service``, or directly from the name of a registered application.
    """

    _site: CallSite | Memo
    _future_class: type[ObjectFuture[Any]] = ObjectFuture

    def __init__(self, app: str, execution_object: Callable[P, R] | object, **options: Any) -> None:
        from flamepy._calls.opening import open_service

        self._bind(execution_object, open_service(app, execution_object, **options))

    @classmethod
    def over(cls, execution_object: Any, handle: SessionHandle, *, ordered: bool, memo: bool = False) -> RunnerService[..., Any]:
        """A service over a session that is open already."""
        service = cls.__new__(cls)
        service._bind(execution_object, (handle, ordered), memo=memo)
        return service

    def _bind(self, execution_object: Any, opened: tuple[SessionHandle, bool], *, memo: bool = False) -> None:
        # Few public names: each is one the user's methods cannot have without `methods`.
        self._handle, self._ordered = opened
        self._object = execution_object
        self._local: Any = None
        self._closed = False
        self._on_close: Callable[[], None] | None = None
        self._site = CallSite(self._handle, ordered=self._ordered, future=self._future_class)
        if memo:
            from flamepy._calls.memo import Memo

            self._site = Memo(self._site)
        self._caller: RemoteMethod[..., Any] | None = (
            RemoteMethod(self, "", execution_object) if is_called_itself(execution_object) else None
        )
        found: dict[str, RemoteMethod[..., Any]] = {
            name: RemoteMethod(self, name, original) for name, original in public_methods(execution_object)
        }
        self.methods = _Methods(found, self._name)
        self.__doc__ = inspect.getdoc(execution_object)
        taken = sorted(name for name in found if hasattr(type(self), name) or name in self.__dict__)
        for name in found.keys() - set(taken):
            self.__dict__[name] = found[name]
        if taken:
            warnings.warn(
                f"{self._name} has methods named like those of RunnerService: {', '.join(taken)}; reach them as "
                + ", ".join(f"svc.methods.{name}(...)" for name in taken),
                stacklevel=4,
            )

    # ------------------------------------------------------------------ calling

    @overload
    def __call__(self, /, *args: P.args, **kwargs: P.kwargs) -> ObjectFuture[R]: ...
    @overload
    def __call__(self, first: _Pending, /, *rest: Any, **kwargs: Any) -> ObjectFuture[R]: ...
    @overload
    def __call__(self, first: Any, second: _Pending, /, *rest: Any, **kwargs: Any) -> ObjectFuture[R]: ...
    @overload
    def __call__(self, first: Any, second: Any, third: _Pending, /, *rest: Any, **kwargs: Any) -> ObjectFuture[R]: ...

    def __call__(self, /, *args: Any, **kwargs: Any) -> ObjectFuture[R]:
        """Call the execution object itself."""
        caller = self._caller
        if caller is None:
            raise self._not_callable()
        accepted = caller._accepted
        if kwargs or not accepted.least <= len(args) <= accepted.most:
            accepted.check(args, kwargs)
        return self._site.call("", args, kwargs)

    def call(self, method: str, /, *args: Any, **kwargs: Any) -> ObjectFuture[Any]:
        """Call a method by name; an empty name calls the object itself."""
        return self._site.call(method, args, kwargs)

    def map(self, *iterables: Iterable[Any], **how: Any) -> Iterator[R]:
        """Call it for each input and give the results, like the built-in ``map``, without holding all of them at once.

        Args:
            how: ``ordered=True``; ``in_flight``: calls made and not yet consumed, at most; ``return_exceptions=False``: give an
                exception as a result in place of raising it; ``progress=None``: a bar on standard error, by default only on a
                terminal; ``timeout=None``: seconds for the whole.
        """
        return self._called_itself().map(*iterables, **how)

    def starmap(self, arguments: Iterable[tuple[Any, ...]], **how: Any) -> Iterator[R]:
        """Like `map`, with the arguments of each call as a tuple."""
        return self._called_itself().starmap(arguments, **how)

    def options(
        self, *, timeout: float | None = None, retries: int | None = None, priority: int | None = None, name: str | None = None
    ) -> RemoteMethod[P, R]:
        """The service as a callable with other options; for a method, ``svc.method.options(...)``. See `CallOptions`."""
        return self._called_itself().options(timeout=timeout, retries=retries, priority=priority, name=name)

    def local(self, /, *args: P.args, **kwargs: P.kwargs) -> R:
        """Call it here and now, in this process: for a debugger. For a method, ``svc.method.local(...)``."""
        return self._called_itself().local(*args, **kwargs)

    def _called_itself(self) -> RemoteMethod[P, R]:
        if self._caller is None:
            raise self._not_callable()
        return cast("RemoteMethod[P, R]", self._caller)

    def _not_callable(self) -> TypeError:
        names = ", ".join(sorted(name for name in vars(self.methods) if not name.startswith("_"))) or "none"
        return TypeError(f"{self._name} cannot be called itself; its methods: {names}")

    def __getattr__(self, name: str) -> RemoteMethod[..., Any]:
        # Only for what is not there: wrappers are attributes of the instance.
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        raise no_method(self._name, name, [known for known in vars(self.methods) if not known.startswith("_")])

    def _local_object(self) -> Any:
        if self._local is None:
            self._local = self._object() if inspect.isclass(self._object) else self._object
        return self._local

    # ------------------------------------------------------------------ about it

    @property
    def _name(self) -> str:
        """What the execution object is called."""
        return name_of(self._object)

    @property
    def session_id(self) -> str:
        return self._handle.session.session_id

    @property
    def _endpoint(self) -> str:
        """The engine its calls run on."""
        return self._handle.connection.endpoint

    def info(self) -> SessionInfo:
        """How many of its calls wait, run, and have ended how."""
        return self._handle.session.info()

    def logs(self) -> str:
        """The latest of what its workers printed."""
        return self._handle.logs_of(-1)

    def close(self, *, wait: bool = True) -> None:
        """End it: waits for the calls made, then ends its workers. Closing twice is fine."""
        if self._closed:
            return
        self._closed = True
        self._handle.abandon_streams()
        try:
            if wait:
                self._site.wait_for_arguments()
            self._handle.session.close(wait=wait)
            if wait:
                callback_thread.flush()
        finally:
            if self._on_close is not None:
                self._on_close()

    def __reduce__(self) -> Any:
        raise TypeError(f"the service {self._name} stays in the program that made it; pass what it gives, or use a Runner inside the task")

    def __enter__(self) -> RunnerService[P, R]:
        if self._closed:
            raise ClosedError(f"service {self._name} is closed")
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.close(wait=kind is None)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *(name for name in vars(self.methods) if not name.startswith("_"))})

    def __repr__(self) -> str:
        state = "closed" if self._closed else "open"
        kind = "stateful" if self._ordered else "stateless"
        return f"<RunnerService {self._name} ({kind}, {state}) session {self.session_id} of {self._handle.application} on {self._endpoint}>"

    def _repr_html_(self) -> str:
        from flamepy._calls.html import table

        rows = {"service": self._name, "kind": "stateful" if self._ordered else "stateless", "state": "closed" if self._closed else "open"}
        info = self.info()
        rows |= {"session": self.session_id, "application": self._handle.application, "engine": self._endpoint}
        rows |= {name: str(getattr(info, name)) for name in ("pending", "running", "succeeded", "failed")}
        return table("RunnerService", rows)


def _accepted(service: RunnerService[..., Any], method: str, original: Any) -> Accepted:
    served = service._object
    if not method and inspect.isclass(served):  # its instances are called
        return accepted_by(f"{service._name}()", inspect.getattr_static(served, "__call__"), method=True)
    name = f"{service._name}.{method}" if method else service._name
    return accepted_by(name, original, method=is_bound_there(served, method))
