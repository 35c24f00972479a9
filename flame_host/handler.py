"""The generic handler of a serverless worker: one factory in place of code generated for every function.

::

    handler = create_handler({"infer": infer, "Encoder": Encoder})
    handler({"input": {"function_name": "infer", "args": [serialize_result(21)]}})

A job's input holds ``function_name``; ``execution_type`` (``"function"``, or ``"class"`` to call a method of an instance); ``args``
and ``kwargs``, for a class those of its constructor; ``method_name`` (``"__call__"``), ``method_args``, ``method_kwargs``. Every value
is base64 of the format that ``format`` names, by default ``cloudpickle/1`` unless the worker's policy denies pickle.

The answer is ``{"success": true, "result": …}`` or ``{"success": false, "error": …, "traceback": …}``; nothing a function does makes
the handler raise. The workers this runs under take ``error`` out of the answer and drop the rest; a caller that wants it whole says
``"errors": "nested"`` and gets ``{"success": false, "failure": {…}}``.

A job in plain JSON is answered in plain JSON: see `flame_host.serverless.plain`.
"""

from __future__ import annotations

import asyncio
import logging
import traceback as tracebacks
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping
from typing import Any

from flame_host.serverless.exceptions import Carried
from flame_host.serverless.execution import Instances, run, users_part
from flame_host.serverless.formats import (
    Codec,
    Formats,
    PayloadError,
    PayloadTooLargeError,
    decode_dict,
    decode_list,
    encode,
    result_limit,
)
from flame_host.serverless.manifest import declared_methods, find_manifest, load_manifest
from flame_host.serverless.plain import PlainCall, failed, plain_call
from flame_host.serverless.signatures import check_arguments
from flame_host.serverless.stopping import JobThreads, Stopped, job_at_work

__all__ = [
    "PayloadError",
    "PayloadTooLargeError",
    "Stopped",
    "create_concurrent_handler",
    "create_handler",
    "create_stream_handler",
    "deserialize_arguments",
    "execute_function",
    "load_manifest",
    "serialize_result",
    "stoppable",
]

Handler = Callable[[Mapping[str, Any]], Any]
AsyncHandler = Callable[[Mapping[str, Any]], Awaitable[Any]]
logger = logging.getLogger("flame_host.handler")


def create_handler(function_registry: Mapping[str, Any]) -> Handler:
    """Make the handler of a worker that serves these functions and classes.

    Args:
        function_registry: by the name a job asks for.
    """
    worker = _Worker(dict(function_registry))

    def handler(job: Mapping[str, Any]) -> Any:
        return worker.answer(job)

    return handler


def create_concurrent_handler(function_registry: Mapping[str, Any], max_concurrency: int) -> AsyncHandler:
    """Make an ``async`` handler, for a worker that does several jobs at a time.

    Coroutines share the worker's one loop; what is not ``async`` gets a thread of its own.

    Args:
        max_concurrency: jobs at a time.
    """
    return stoppable(create_handler(function_registry), max_concurrency)


def stoppable(handler: Handler, most: int = 1) -> AsyncHandler:
    """The handler as the worker of a platform awaits it, so that a job that is taken back ends, and the worker is free for the next.

    A coroutine is cancelled. In a function that is not ``async``, `Stopped` is raised. What has not ended ``FLAME_STOP_SECONDS`` later (5)
    is at work in code that cannot be interrupted; then the worker ends.

    Args:
        most: jobs at a time.
    """
    threads = JobThreads(most)

    async def awaited(job: Mapping[str, Any]) -> Any:
        return await threads.run(lambda: handler(job))

    return awaited


def create_stream_handler(
    function_registry: Mapping[str, Any], max_concurrency: int = 1
) -> Callable[[Mapping[str, Any]], AsyncIterator[Any]]:
    """Make a generator handler: what a function yields is sent as it comes, if the job is in plain JSON.

    Args:
        max_concurrency: jobs at a time.
    """
    worker = _Worker(dict(function_registry))
    threads = JobThreads(max_concurrency)
    end = object()

    async def handler(job: Mapping[str, Any]) -> AsyncIterator[Any]:
        answers = worker.answers(job)
        asking = _Asking(threads, answers)
        try:
            while True:
                asking.now()
                answer = await threads.run(lambda: next(answers, end))
                if answer is end:
                    return
                yield answer
        finally:
            asking.over()
            await threads.run(answers.close)

    return handler


class _Asking:
    """Who asks for the items of a stream. A worker that is told to stop while it sends one cancels the task that asked, and leaves the
    generator as it is; when that is collected nobody knows, so it is closed when the task has ended.

    A task that ended otherwise may have asked for one item only, and another asks for the next.
    """

    def __init__(self, threads: JobThreads, answers: Generator[Any, None, None]) -> None:
        self._threads = threads
        self._answers = answers
        self._task: asyncio.Task[Any] | None = None
        self._closing: asyncio.Task[Any] | None = None  # a loop keeps no reference of its own

    def now(self) -> None:
        task = asyncio.current_task()
        if task is not self._task:
            self.over()
            self._task = task
            if task is not None:
                task.add_done_callback(self._ended)

    def over(self) -> None:
        if self._task is not None:
            self._task.remove_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        if task.cancelled():
            self._closing = task.get_loop().create_task(self._threads.run(self._answers.close))


def serialize_result(result: object, format: str | None = None) -> str:
    """A value as a job or an answer carries it.

    Raises:
        PayloadTooLargeError: more than ``FLAME_MAX_RESULT_BYTES``.
    """
    return encode(result, Formats(find_manifest()).codec(format), result_limit(), "the result")


def deserialize_arguments(job_input: Mapping[str, Any]) -> tuple[list[Any], dict[str, Any]]:
    """``args`` and ``kwargs`` of a job's input, decoded.

    Raises:
        PayloadError: they are not what they should be, too large, or of a format that is not admitted.
    """
    return _arguments(job_input, Formats(find_manifest()).codec(job_input.get("format")))


def execute_function(func_or_class: Any, args: list[Any], kwargs: dict[str, Any], execution_type: str, job_input: Mapping[str, Any]) -> Any:
    """Call a function, or make an instance and call its method; coroutines and generators are seen through to their end.

    Args:
        job_input: where, for a class, ``method_name``, ``method_args`` and ``method_kwargs`` are found.
    """
    codec = Formats(find_manifest()).codec(job_input.get("format"))
    return run(func_or_class, args, kwargs, {**job_input, "execution_type": execution_type}, codec)


def _arguments(job_input: Mapping[str, Any], codec: Codec) -> tuple[list[Any], dict[str, Any]]:
    return decode_list(job_input.get("args"), codec, "args"), decode_dict(job_input.get("kwargs"), codec, "kwargs")


class _Worker:
    def __init__(self, registry: dict[str, Any]) -> None:
        self._registry = registry
        manifest = find_manifest()
        self._formats = Formats(manifest)
        self._declared = declared_methods(manifest)
        self._instances = Instances()

    def answer(self, job: Mapping[str, Any]) -> Any:
        call = self._plain(job)
        return self._encoded(job) if call is None else self._answer_plain(call)

    def answers(self, job: Mapping[str, Any]) -> Generator[Any, None, None]:
        """The values of a generator, one by one; the answer to a job of the encoded form is one."""
        call = self._plain(job)
        if call is None:
            yield self._encoded(job)
            return
        try:
            yield from call.values(self._instances)
        except GeneratorExit:
            raise
        except BaseException as error:
            if _is_the_operators(error):
                raise
            yield _plain_failure(call.name, error)

    def _plain(self, job: Mapping[str, Any]) -> PlainCall | None:
        job_input = job.get("input") if isinstance(job, Mapping) else job
        return plain_call(job_input, self._registry, self._declared) if isinstance(job_input, Mapping) else None

    def _answer_plain(self, call: PlainCall) -> Any:
        try:
            return call.value(self._instances)
        except BaseException as error:
            if _is_the_operators(error):
                raise
            return _plain_failure(call.name, error)

    def _encoded(self, job: Mapping[str, Any]) -> dict[str, Any]:
        job_input = job.get("input") if isinstance(job, Mapping) else job
        if job_input is None:
            job_input = {}
        if not isinstance(job_input, Mapping):
            return _refusal(f"Invalid job input type: expected dict, got {type(job_input).__name__}")
        nested = job_input.get("errors") == "nested"
        name = job_input.get("function_name")
        if not isinstance(name, str) or name not in self._registry:
            return _refusal(f"Function '{name}' not found in registry. Available: {list(self._registry)}", nested)
        codec = None
        try:
            codec = self._formats.codec(job_input.get("format"))
            check_arguments(self._registry[name], job_input)
            args, kwargs = _arguments(job_input, codec)
            value = run(
                self._registry[name], args, kwargs, job_input, codec,
                instances=self._instances, public_only=self._formats.pickle_denied, declared=self._declared.get(name),
            )  # fmt: skip
            answer = {"success": True, "result": encode(value, codec, result_limit(), "the result")}
        except BaseException as error:
            if _is_the_operators(error):
                raise
            # Most workers tell their caller the message only; the log is where the rest can be found.
            logger.warning("%s failed: %s", name, _text(error), exc_info=(type(error), error, users_part(error.__traceback__)))
            return _failure(error, codec, nested)
        if codec.format != "cloudpickle/1":
            answer["format"] = codec.format
        return answer


def _is_the_operators(error: BaseException) -> bool:
    """Whether it comes from whoever runs the worker, and not from the function: Ctrl-C, or the end of a job that was taken back."""
    kind = type(error)
    # Raised by the runtime of a worker process of ours, which is not there in others.
    taken_back = kind.__name__ == "Interrupted" and not issubclass(kind, Exception) and kind.__module__ == "runtime.interruption"
    job = job_at_work()
    cancelled = isinstance(error, asyncio.CancelledError) and job is not None and job.stopped
    return isinstance(error, (KeyboardInterrupt, Stopped)) or cancelled or taken_back


def _plain_failure(name: str, error: BaseException) -> dict[str, Any]:
    text, trace = _text(error), users_part(error.__traceback__)
    logger.warning("%s failed: %s", name, text, exc_info=(type(error), error, trace))
    return failed(error, text, "".join(tracebacks.format_exception(type(error), error, trace)))


def _refusal(message: str, nested: bool = False) -> dict[str, Any]:
    if nested:
        return {"success": False, "failure": {"type": "builtins.LookupError", "error": message, "traceback": "", "exception": None}}
    return {"success": False, "error": message, "traceback": ""}


def _failure(error: BaseException, codec: Codec | None, nested: bool) -> dict[str, Any]:
    text = _text(error)
    trace = "".join(tracebacks.format_exception(type(error), error, users_part(error.__traceback__)))
    if not nested:
        return {"success": False, "error": text, "traceback": trace}
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    failure = {"type": kind, "error": text, "traceback": trace, "exception": _travelling(error, codec)}
    answer = {"success": False, "failure": failure}
    return answer if codec is None else {**answer, "format": codec.format}


def _text(error: BaseException) -> str:
    """Never empty: some workers take a job with an empty error for a success."""
    try:
        text = str(error)
    except Exception as broken:
        text = f"<str() of the exception raised {type(broken).__name__}>"
    if text and isinstance(error, Exception):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _travelling(error: BaseException, codec: Codec | None) -> str | None:
    """The exception itself, for a caller that can read it; None when it cannot travel."""
    if codec is None or codec.format != "cloudpickle/1":
        return None
    try:
        text = encode(Carried(error), codec, result_limit(), "the exception")
        codec.loads(codec.dumps(Carried(error)))  # one that cannot be read again is better told about
    except Exception:
        return None
    return text
