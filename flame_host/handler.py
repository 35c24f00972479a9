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
"""

from __future__ import annotations

import logging
import traceback as tracebacks
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any

from flame_host.serverless.execution import Instances, run
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
from flame_host.serverless.signatures import check_arguments

__all__ = [
    "PayloadError",
    "PayloadTooLargeError",
    "create_handler",
    "deserialize_arguments",
    "execute_function",
    "load_manifest",
    "serialize_result",
]

Handler = Callable[[Mapping[str, Any]], dict[str, Any]]
logger = logging.getLogger("flame_host.handler")


def create_handler(function_registry: Mapping[str, Any]) -> Handler:
    """Make the handler of a worker that serves these functions and classes.

    Args:
        function_registry: by the name a job asks for.
    """
    worker = _Worker(dict(function_registry))

    def handler(job: Mapping[str, Any]) -> dict[str, Any]:
        return worker.answer(job)

    return handler


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

    def answer(self, job: Mapping[str, Any]) -> dict[str, Any]:
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
        except KeyboardInterrupt:  # the operator's, not the function's
            raise
        except BaseException as error:
            # Most workers tell their caller the message only; the log is where the rest can be found.
            logger.warning("%s failed: %s", name, _text(error), exc_info=(type(error), error, _without_ours(error.__traceback__)))
            return _failure(error, codec, nested)
        if codec.format != "cloudpickle/1":
            answer["format"] = codec.format
        return answer


def _refusal(message: str, nested: bool = False) -> dict[str, Any]:
    if nested:
        return {"success": False, "failure": {"type": "builtins.LookupError", "error": message, "traceback": "", "exception": None}}
    return {"success": False, "error": message, "traceback": ""}


def _failure(error: BaseException, codec: Codec | None, nested: bool) -> dict[str, Any]:
    text = _text(error)
    trace = "".join(tracebacks.format_exception(type(error), error, _without_ours(error.__traceback__)))
    if not nested:
        return {"success": False, "error": text, "traceback": trace}
    kind = f"{type(error).__module__}.{type(error).__qualname__}"
    failure = {"type": kind, "error": text, "traceback": trace, "exception": _travelling(error, codec)}
    answer = {"success": False, "failure": failure}
    return answer if codec is None else {**answer, "format": codec.format}


def _without_ours(trace: TracebackType | None) -> TracebackType | None:
    """From the user's first frame on; all of it when there is none."""
    first = trace
    while trace is not None and trace.tb_frame.f_globals.get("__name__", "").startswith(("flame_host.handler", "flame_host.serverless.")):
        trace = trace.tb_next
    return trace or first


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
        text = encode(error, codec, result_limit(), "the exception")
        codec.loads(codec.dumps(error))  # one that cannot be read again is better told about
    except Exception:
        return None
    return text
