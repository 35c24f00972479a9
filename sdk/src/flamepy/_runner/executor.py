"""A Runner where the standard library wants an executor: any callable, called once, on any of the workers of one session."""

from __future__ import annotations

import concurrent.futures.thread  # noqa: F401  (it registers an end of its own, which must come after ours)
import hashlib
import inspect
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from flame_host.api import Buffer, NotSerializableError
from flamepy._calls.arguments import check_arguments
from flamepy._calls.callbacks import at_once
from flamepy._calls.introspection import name_of
from flamepy._runner import calling

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture
    from flamepy._calls.service import RunnerService
    from flamepy._client import Client
    from flamepy._runner.runner import Runner

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")

_INLINE = 64 << 10
"""Bytes of code that go along with each call; more is stored once and referred to."""


class Calls:
    """The calls of a Runner that belong to no service: one session for all of them.

    What is called is sent as it is at each call. Functions and classes are encoded here and known to a worker by what they encode to;
    anything else, whose state may be another each time, travels as an argument.
    """

    def __init__(self, runner: Runner, client: Client) -> None:
        self._runner = runner
        self._client = client
        self._serializer = client.serializer(runner.plan)
        self._by_value = client.by_value(runner.application)
        self._lock = threading.Lock()
        self._service: RunnerService[..., Any] | None = None
        self._services: dict[Any, RunnerService[..., Any]] = {}

    def call(self, fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> ObjectFuture[Any]:
        if isinstance(fn, Prepared):
            return self._caller()(*fn.code, *args, **kwargs)
        if not callable(fn):
            raise TypeError(f"{fn!r:.80} is not callable")
        check_arguments(name_of(fn), fn, args, kwargs)
        if not self._sends_code:
            return self._by_import_path(fn)(*args, **kwargs)
        return self._caller()(*self._code(fn, ask=False), *args, **kwargs)

    def prepare(self, fn: Callable[..., Any]) -> Prepared | Callable[..., Any]:
        """The callable as it is now, for many calls."""
        return Prepared(self._code(fn, ask=True)) if callable(fn) and self._sends_code else fn

    def carry(self, fn: Callable[..., Any]) -> None:
        self._by_value.add(fn)

    @property
    def _sends_code(self) -> bool:
        return "executes-code" in self._serializer.traits

    def _code(self, fn: Callable[..., Any], *, ask: bool) -> tuple[bytes, Any]:
        """What `calling.Caller` takes first.

        Args:
            ask: encode objects, too, which a single call takes along among its arguments.
        """
        self._by_value.add(fn)
        if not ask and not (inspect.isroutine(fn) and not inspect.ismethod(fn)) and not inspect.isclass(fn):
            return b"", fn
        buffers: list[Buffer] = []
        data = self._serializer.dumps(fn, buffers=buffers)
        if buffers or len(data) > _INLINE:
            return b"", self._runner.put_object(fn)
        return hashlib.blake2b(data, digest_size=16).digest(), data

    def _caller(self) -> RunnerService[..., Any]:
        with self._lock:
            if self._service is None:
                with self._serializer.by_value([calling.__name__]):
                    self._service = self._runner.service(calling.Caller(self._serializer.codec), autoscale=True)
                self._service._handle.for_threads = True
            return self._service

    def _by_import_path(self, fn: Callable[..., Any]) -> RunnerService[..., Any]:
        """A format that carries no code names functions by their import path, one service for each."""
        if not inspect.isfunction(fn):
            raise NotSerializableError(
                f"{self._serializer.name} carries no code, and {fn!r:.80} is no function to be imported by its path",
                hint="pass a function of a module, or use the serializer cloudpickle",
            )
        with self._lock:
            if fn not in self._services:
                self._services[fn] = self._runner.service(fn)
                self._services[fn]._handle.for_threads = True
            return self._services[fn]


class Prepared:
    """A callable that was encoded for many calls."""

    def __init__(self, code: tuple[bytes, Any]) -> None:
        self.code = code

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("only an executor can call this")


class RunnerExecutor(Executor):
    """A `concurrent.futures.Executor` whose futures are `ObjectFuture`."""

    def __init__(self, runner: Runner, calls: Calls) -> None:
        self._runner = runner
        self._calls = calls
        self._open = True
        self._pending: set[ObjectFuture[Any]] = set()
        self._lock = threading.Lock()
        _executors.add(self)

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> ObjectFuture[R]:
        with self._lock:
            # RuntimeError, as every executor of the standard library says it.
            if not self._open:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if self._runner.closed:
                raise RuntimeError(f"cannot schedule new futures after Runner {self._runner.name!r} was closed")
            if _ending:
                raise RuntimeError("cannot schedule new futures after interpreter shutdown")
            future = self._calls.call(fn, args, kwargs)
            self._pending.add(future)
        future.when_done(at_once(self._pending.discard))
        return cast("ObjectFuture[R]", future)

    def map(
        self, fn: Callable[..., T], *iterables: Iterable[Any], timeout: float | None = None, chunksize: int = 1, **more: Any
    ) -> Iterator[T]:
        """As of every executor; ``chunksize`` changes nothing, since calls are gathered on their way."""
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        prepared = cast("Callable[..., T]", self._calls.prepare(fn))
        return super().map(prepared, *iterables, timeout=timeout, **more)

    def carry(self, fn: Callable[..., Any]) -> None:
        """Let a function's module travel by value from now on, if workers could not import it: for what is called within something else."""
        self._calls.carry(fn)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls. What runs is left running, also with ``cancel_futures``; the Runner stays open."""
        with self._lock:
            self._open = False
            pending = list(self._pending)
        if cancel_futures:
            for future in pending:
                if not future.running():
                    future.cancel()
        if wait:
            for future in pending:
                future.wait()


_executors: weakref.WeakSet[RunnerExecutor] = weakref.WeakSet()
_ending = False


def _finish() -> None:
    """At the program's end, before anything is torn down: what was submitted is done, as with every executor."""
    global _ending
    _ending = True
    for executor in list(_executors):
        executor.shutdown(wait=True)


# In a forked child the calls are the parent's to wait for.
os.register_at_fork(after_in_child=_executors.clear)
# The door the standard library's own executors use, last in first out: atexit would be too late to start another thread.
threading._register_atexit(_finish)  # type: ignore[attr-defined]
