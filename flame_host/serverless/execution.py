"""Calling the user's code: functions, coroutines, generators, and classes whose instances are kept."""

from __future__ import annotations

import inspect
import sys
import threading
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from functools import cache
from types import FunctionType
from typing import TYPE_CHECKING, Any

from flame_host.serverless.formats import Codec, PayloadError, decode_dict, decode_list
from flame_host.serverless.stopping import job_at_work

if TYPE_CHECKING:
    import asyncio
    from concurrent.futures import ThreadPoolExecutor
    from types import TracebackType

    from flame_host.serverless.stopping import JobCall

MOST_INSTANCES = 64


class Instances:
    """Instances of registered classes, kept for the life of the worker: one for each class and constructor arguments.

    The arguments are compared as they came, encoded. When there are too many, the one that was not used for longest is dropped.
    """

    def __init__(self, most: int = MOST_INSTANCES) -> None:
        self._most = most
        self._kept: OrderedDict[object, Any] = OrderedDict()
        self._lock = threading.RLock()

    def get(self, key: object, make: Callable[[], Any]) -> Any:
        with self._lock:
            if key not in self._kept:
                self._kept[key] = make()
                while len(self._kept) > self._most:
                    self._kept.popitem(last=False)
            self._kept.move_to_end(key)
            return self._kept[key]


def original(registered: Any) -> Any:
    """The function or class behind a ``@remote`` decoration; anything else as it is."""
    return getattr(registered, "__flame_original__", registered)


def run(
    registered: Any,
    args: list[Any],
    kwargs: dict[str, Any],
    job_input: Mapping[str, Any],
    codec: Codec,
    *,
    instances: Instances | None = None,
    public_only: bool = False,
    declared: Collection[str] | None = None,
) -> Any:
    """Call it, as a class if the job says so, and see an awaitable or a generator through to its end.

    Args:
        public_only: refuse methods with a leading underscore, ``__call__`` excepted. declared: the methods that a manifest names for
            the class; no others of its own are called then.
    """
    target = original(registered)
    if job_input.get("execution_type", "function") != "class":
        return on_quiet_thread(lambda: completed(target(*args, **kwargs)))
    name = job_input.get("method_name") or "__call__"
    if not isinstance(name, str):
        raise PayloadError(f"method_name must be text, not {type(name).__name__}")
    if not inspect.isclass(target):
        raise PayloadError(f"{job_input.get('function_name')!r} is a function; execution_type 'class' is for classes")
    if not hasattr(target, name):  # of the class: what an instance keeps in its attributes is no method, though it may be callable
        raise AttributeError(f"{target.__name__!r} object has no attribute {name!r}")
    if not is_declared(target, name, declared):
        raise PayloadError(f"{name!r} is no method that the manifest declares; declared are {', '.join(sorted(declared or ())) or 'none'}")
    if public_only and name.startswith("_") and name != "__call__":
        raise PayloadError(f"method {name!r} is private")
    method_args = decode_list(job_input.get("method_args"), codec, "method_args")
    method_kwargs = decode_dict(job_input.get("method_kwargs"), codec, "method_kwargs")

    kept = Instances() if instances is None else instances

    def call() -> Any:
        instance = kept.get(_key(target, job_input), lambda: target(*args, **kwargs))
        return completed(getattr(instance, name)(*method_args, **method_kwargs))

    return on_quiet_thread(call)


def is_declared(target: type, name: str, declared: Collection[str] | None) -> bool:
    """Whether a method may be called by that name; without a manifest (None) all may."""
    return declared is None or name in declared or _is_inherited(target, name)


def _is_inherited(target: type, name: str) -> bool:
    """Whether a base class of the application's gives it: the manifest is read from the source of the class alone."""
    return not name.startswith("_") and any(
        isinstance(vars(base).get(name), (FunctionType, staticmethod, classmethod)) for base in target.__mro__[1:]
    )


def _key(target: Any, job_input: Mapping[str, Any]) -> object:
    given = job_input.get("kwargs") or {}
    return target, tuple(job_input.get("args") or ()), tuple(sorted(given.items())), job_input.get("format")


def completed(value: Any) -> Any:
    """The value itself, what an awaitable gives, or the list of what a generator yields."""
    if inspect.isgenerator(value):
        return list(value)
    if inspect.isasyncgen(value):
        return on_loop(_collected(value))
    if inspect.isawaitable(value):
        return on_loop(_awaited(value))
    return value


async def _collected(stream: Any) -> list[Any]:
    return [item async for item in stream]


async def _awaited(value: Any) -> Any:
    return await value


_NOT_THE_USERS = ("flame_host.handler", "flame_host.serverless.", "asyncio.", "concurrent.futures.")


def users_part(trace: TracebackType | None) -> TracebackType | None:
    """A traceback from the first frame on that is not of those who call the user's code; None when there is none."""
    while trace is not None and f"{trace.tb_frame.f_globals.get('__name__', '')}.".startswith(_NOT_THE_USERS):
        trace = trace.tb_next
    return trace


def on_loop(coroutine: Any) -> Any:
    """Run a coroutine on the worker's own loop, which outlives the call: what a class keeps there (a client, a lock) stays valid."""
    import asyncio

    running = asyncio.run_coroutine_threadsafe(_shielded(coroutine, job_at_work()), _loop())
    try:
        return running.result().get()
    except BaseException:
        running.cancel()  # whoever waited was told to stop; the coroutine must not go on by itself
        raise


async def _shielded(coroutine: Any, job: JobCall | None) -> _Outcome:
    # SystemExit from a task would end the loop's thread, and with it every later call.
    try:
        if job is None:
            return _Outcome(await coroutine, None)
        with job.awaiting():
            return _Outcome(await coroutine, None)
    except BaseException as error:
        return _Outcome(None, error)


class _Outcome:
    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error

    def get(self) -> Any:
        if self.error is not None:
            raise self.error
        return self.value


@cache
def _loop() -> asyncio.AbstractEventLoop:
    import asyncio

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name="flame-handler-loop", daemon=True).start()
    return loop


def on_quiet_thread(call: Callable[[], Any]) -> Any:
    """Call it where no event loop runs.

    A serverless worker may call its handler from within its loop, where the user's ``asyncio.run`` would be refused; then the call is
    made on a thread of its own, always the same one.
    """
    if not _loop_runs_here():
        return call()
    if threading.current_thread().name.startswith("flame-handler-loop"):
        return call()

    def caught() -> _Outcome:
        try:
            return _Outcome(call(), None)
        except BaseException as error:
            return _Outcome(None, error)

    return _thread().submit(caught).result().get()


def _loop_runs_here() -> bool:
    loaded = sys.modules.get("asyncio")  # importing it takes longer than everything else a handler needs
    if loaded is None:
        return False
    try:
        loaded.get_running_loop()
    except RuntimeError:
        return False
    return True


@cache
def _thread() -> ThreadPoolExecutor:
    from concurrent.futures import ThreadPoolExecutor

    return ThreadPoolExecutor(1, thread_name_prefix="flame-handler")
