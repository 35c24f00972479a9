"""The inline engine: calls run at once, in the calling thread, with the same encoding as anywhere else."""

from __future__ import annotations

import asyncio
import importlib.util
import inspect
import itertools
import os
import sys
import sysconfig
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from flame_host.api import (
    Application,
    Buffer,
    Capabilities,
    ClosedError,
    ConfigError,
    FormatNotAllowedError,
    HostServices,
    ObjectStore,
    Payload,
    Serializer,
    Session,
    SessionInfo,
    SessionSpec,
    SessionState,
    Task,
    buffer_view,
    decoders,
    denies,
)
from flame_host.engine.registry import Registry
from flame_host.engine.shares import Shares, check_resources, this_machine
from flame_host.worker.runtime.report import error_report


class InlineConnection:
    def __init__(self, endpoint: str, services: HostServices) -> None:
        self.endpoint = endpoint
        self._services = services
        self._registry = Registry(endpoint)
        self.objects: ObjectStore = services.cache("local").open("local:")
        self.get_application = self._registry.find_application
        self.list_applications = self._registry.applications
        self.list_sessions = self._registry.sessions

    def capabilities(self) -> Capabilities:
        return replace(self._services.capabilities(), runs_in_process=True, sees_client_files=True)

    def register_application(self, application: Application) -> None:
        self._registry.register(application)

    def update_application(self, application: Application) -> None:
        self._registry.update(application)

    def unregister_application(self, name: str) -> None:
        self._registry.unregister(name)

    def open_session(self, spec: SessionSpec) -> Session:
        application = self._registry.application(spec.application)
        check_resources(spec, Shares(*this_machine()))  # one call runs at a time, here: more is not needed of it
        session = InlineSession(self._registry.name_session(spec), application, self._services)
        self._registry.add_session(session)
        return session

    def get_session(self, session_id: str) -> SessionInfo:
        return self._registry.session(session_id).info()

    def close_session(self, session_id: str) -> None:
        self._registry.session(session_id).close()

    def close(self) -> None:
        for session in self._registry.close():
            session.close()
        self.objects.close()


class InlineSession:
    """Calls of one session never overlap, as they would not on a worker."""

    def __init__(self, spec: SessionSpec, application: Application, services: HostServices) -> None:
        self.session_id = spec.session_id
        self._spec = spec
        self._services = services
        if spec.isolation:
            raise ConfigError("the inline engine has no processes to isolate calls in", hint='leave isolation out, or engine="local"')
        self._decoders = decoders(application.plan, services.serializer)
        self._serializer = self._decoder(spec.common_data.format)
        self._own_code_only = denies(application.plan.policy, "pickle")
        self._turn = threading.RLock()
        self._numbers = itertools.count(1)
        self._created = time.time()
        self._completed: float | None = None
        self._counts = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self._target: Callable[[], Any] | None = None

    def submit(self, task: Task, method: str, data: bytes, buffers: Sequence[Buffer] = (), references: Sequence[Payload] = ()) -> None:
        if self._completed is not None:
            raise ClosedError(f"session {self.session_id} is closed")
        task.number = next(self._numbers)
        task.attempts = 1
        if not task.begin():
            self._counts["cancelled"] += 1
            return
        with self._turn:
            try:
                value = self._call(method, data, buffers, references)
                result = self._encode(task, value)
            except BaseException as error:
                if isinstance(error, Exception) and os.environ.get("FLAME_POST_MORTEM"):
                    _post_mortem(error)
                self._counts["failed"] += 1
                kind = "exit" if isinstance(error, SystemExit) else "raised"
                if isinstance(error, _Unpicklable):
                    kind, error = "unpicklable-result", error.cause
                task.fail_remotely(error_report(error, self._serializer.dumps, kind))
                if isinstance(error, KeyboardInterrupt):
                    raise
                return
        self._counts["succeeded"] += 1
        task.succeed(*result)

    def _call(self, method: str, data: bytes, buffers: Sequence[Buffer], references: Sequence[Payload]) -> Any:
        def resolve(index: int) -> Any:
            reference = references[index]
            return self._load(self._decoder(reference.format), reference)

        if self._target is None:
            loaded = self._load_code()
            instance = loaded() if self._spec.instantiate else loaded
            self._target = lambda: instance
        args, kwargs = self._serializer.loads(data, buffers=[buffer_view(buffer) for buffer in buffers], resolve=resolve)
        target = self._target()
        value = (getattr(target, method) if method else target)(*args, **kwargs)
        return _run(_awaited(value)) if inspect.isawaitable(value) else value

    def _decoder(self, format: str) -> Serializer:
        if format not in self._decoders:
            raise FormatNotAllowedError(f"payload of format {format!r:.60} is not admitted here; admitted: {', '.join(self._decoders)}")
        return self._decoders[format]

    @staticmethod
    def _load(serializer: Serializer, payload: Payload) -> Any:
        return serializer.loads(payload.data, buffers=[buffer_view(buffer) for buffer in payload.buffers])

    def _load_code(self) -> Any:
        payload = self._spec.common_data
        buffers = [memoryview(bytearray(buffer_view(buffer))) for buffer in payload.buffers]  # the session's own to change
        return self._serializer.loads_code(payload.data, buffers=buffers, allow=_is_the_programs_own if self._own_code_only else None)

    def _encode(self, task: Task, value: Any) -> tuple[bytes, list[Buffer]]:
        if inspect.isasyncgen(value):
            value = _drain(value)
        if inspect.isgenerator(value):
            generator = value
            task.open_stream()
            while True:
                try:
                    task.stream(*self._dumps(next(generator)))
                except StopIteration as stop:
                    value = stop.value
                    break
        return self._dumps(value)

    def _dumps(self, value: object) -> tuple[bytes, list[Buffer]]:
        buffers: list[Buffer] = []
        try:
            data = self._serializer.dumps(value, buffers=buffers)
        except Exception as error:
            raise _Unpicklable(error) from error
        return data, [bytes(buffer_view(buffer)) for buffer in buffers]  # a copy: the task may go on changing its array

    def drive(self, task: Task, enough: Callable[[], bool], timeout: float | None = None) -> None:
        """Every task is done when `submit` returns."""

    def cancel(self, task: Task, *, force: bool = False) -> bool:
        return False

    def grant(self, task: Task, taken: int) -> None:
        """Items are not held back here."""

    def info(self) -> SessionInfo:
        state = SessionState.OPEN if self._completed is None else SessionState.CLOSED
        return SessionInfo(self.session_id, self._spec.application, state, self._created, self._completed, **self._counts)

    def close(self, *, wait: bool = True) -> None:
        self._completed = self._completed or time.time()
        self._target = None


def _is_the_programs_own(module: str) -> bool:
    """Whether a module is neither Python's nor installed: inline there is no package, and the program itself takes its place."""
    top = module.partition(".")[0]
    spec = importlib.util.find_spec(top) if top not in sys.modules else sys.modules[top].__spec__
    places = [*(spec.submodule_search_locations or ()), spec.origin or ""] if spec is not None else []
    paths = sysconfig.get_paths()
    libraries = tuple(os.path.realpath(paths[name]) + os.sep for name in ("stdlib", "platstdlib", "purelib", "platlib"))
    return any(os.path.isabs(place) for place in places) and not any(
        os.path.realpath(place).startswith(libraries) for place in places if os.path.isabs(place)
    )


class _Unpicklable(Exception):
    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _post_mortem(error: Exception) -> None:
    """Stop in a debugger where a task has failed, with its variables: ``flame debug``."""
    import pdb
    import sys
    import traceback

    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None and trace.tb_frame.f_code.co_filename == __file__:
        trace = trace.tb_next
    sys.stderr.write("".join(traceback.format_exception(type(error), error, trace)))
    sys.stderr.write("flame debug: the task failed here; `c` goes on with the program, `q` ends the session\n")
    pdb.post_mortem(trace)


def _run(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run to the end; in a thread of its own when the caller's already runs a loop, for loops do not nest."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(coroutine)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, coroutine).result()


async def _awaited(value: Any) -> Any:
    return await value


def _drain(stream: Any) -> Iterator[Any]:
    """An asynchronous generator as an ordinary one; in a thread, for the caller's may run a loop already."""
    loop = asyncio.new_event_loop()
    with ThreadPoolExecutor(1) as pool:
        try:
            while True:
                try:
                    yield pool.submit(loop.run_until_complete, _next_of(stream)).result()
                except StopAsyncIteration:
                    return
        finally:
            loop.close()


async def _next_of(stream: Any) -> Any:
    return await stream.__anext__()
