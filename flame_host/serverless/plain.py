"""Jobs in plain JSON: ``{"n": 5}`` calls the one function with ``n=5``, and its value is the answer.

Where an endpoint has several functions, ``function_name`` says which; what it is given are the other keys, or the object under
``input``. Of a class, ``method`` says which method of the one instance. The answer of a job that fails holds, under ``error``, the JSON
text in which the platforms' own workers tell exceptions: ``error_type``, ``error_message``, ``error_traceback``.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import sys
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from enum import Enum
from typing import Any

from flame_host.serverless.execution import Instances, completed, is_declared, on_loop, on_quiet_thread, original
from flame_host.serverless.formats import PayloadError

__all__ = ["PlainCall", "failed", "plain_call", "to_json"]

_PROTOCOL = frozenset(
    ["function_name", "execution_type", "args", "kwargs", "method_name", "method_args", "method_kwargs", "format", "errors"]
)
_SCALARS = (str, int, float, bool, bytes)


@dataclasses.dataclass(frozen=True)
class PlainCall:
    """What a job asks for.

    Attributes:
        given: arguments by name, as JSON has them. method: of a class. declared: the methods that a manifest names for it.
    """

    name: str
    target: Any
    given: Mapping[str, Any]
    method: str = ""
    declared: Collection[str] | None = None

    def value(self, instances: Instances) -> Any:
        """The value, with coroutines and generators seen through to their end, as JSON can hold it."""
        return on_quiet_thread(lambda: to_json(completed(self._called(instances))))

    def values(self, instances: Instances) -> Iterator[Any]:
        """What a generator yields, one by one; the value of anything else."""
        made = on_quiet_thread(lambda: self._called(instances))
        if inspect.isgenerator(made):
            for item in made:
                yield to_json(item)
        elif inspect.isasyncgen(made):
            try:
                while True:
                    yield to_json(on_loop(made.__anext__()))
            except StopAsyncIteration:
                return
            finally:
                on_loop(made.aclose())  # whoever reads may have left it half way
        else:
            yield on_quiet_thread(lambda: to_json(completed(made)))

    def _called(self, instances: Instances) -> Any:
        if not inspect.isclass(self.target):
            return self.target(**_arguments(self.target, self.given))
        instance = instances.get((self.target, "plain"), self.target)
        method = getattr(instance, self._method())
        return method(**_arguments(method, self.given))

    def _method(self) -> str:
        public = [name for name in dir(self.target) if not name.startswith("_") and callable(getattr(self.target, name))]
        if "__call__" in vars(self.target):
            public.append("__call__")
        public = [name for name in public if is_declared(self.target, name, self.declared)]
        if self.method in public:
            return self.method
        if not self.method and len(public) == 1:
            return public[0]
        asked = f"has no method {self.method!r}" if self.method else "has several methods, and the job names none"
        raise PayloadError(f'{self.name} {asked}; write  "method": …  with one of: {", ".join(public)}')


def plain_call(
    job_input: Mapping[str, Any], registry: Mapping[str, Any], declared: Mapping[str, Collection[str]] | None = None
) -> PlainCall | None:
    """What a job asks for in plain JSON; None if it is of the encoded form, or names nothing that is here.

    Args:
        declared: by name of a class, the methods that a manifest names for it.
    """
    others = {key: value for key, value in job_input.items() if key not in _PROTOCOL}
    if not others:
        return None
    if "function_name" in job_input:
        name = job_input["function_name"]
        inner = others.get("input")
        if others.keys() <= {"input", "method"} and isinstance(inner, Mapping):
            others = {**inner, **({"method": others["method"]} if "method" in others else {})}
    elif len(registry) == 1:
        name, others = next(iter(registry)), dict(job_input)
    else:
        return None
    if not isinstance(name, str) or name not in registry:
        return None
    target = original(registry[name])
    method = others.pop("method", "") if inspect.isclass(target) else ""
    return PlainCall(name, target, others, str(method), (declared or {}).get(name))


def _arguments(target: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, of the types the function says where those are made of objects.

    Raises:
        TypeError: they do not fit, told before anything is called.
    """
    signature = inspect.signature(target, follow_wrapped=False)
    parameters = signature.parameters
    hints = _hints(target)
    taken = dict(given)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not open_ended and not taken.keys() <= parameters.keys():
        taken = _as_one(taken, parameters, hints)
    try:
        signature.bind(**taken)
    except TypeError as error:
        raise TypeError(f"{getattr(target, '__qualname__', target)}(): {error}") from None
    return {name: _typed(value, hints.get(name)) for name, value in taken.items()}


def _as_one(given: dict[str, Any], parameters: Mapping[str, inspect.Parameter], hints: Mapping[str, Any]) -> dict[str, Any]:
    """The whole object as the one argument of a function that takes one: ``def f(data: dict)``."""
    needed = [name for name, parameter in parameters.items() if parameter.default is parameter.empty]
    first = needed[0] if len(needed) == 1 else next(iter(parameters), "") if not needed else ""
    if not first or given.keys() & parameters.keys() or hints.get(first) in _SCALARS:
        return given
    return {first: given}


def _hints(target: Callable[..., Any]) -> Mapping[str, Any]:
    try:
        return typing.get_type_hints(target)
    except Exception:  # a hint that names what is only imported for type checkers
        return {}


def _typed(value: Any, hint: Any) -> Any:
    """An object of the class the function asks for, made of a JSON object."""
    if not isinstance(value, Mapping) or not inspect.isclass(hint):
        return value
    pydantic: Any = sys.modules.get("pydantic")  # a class of it can only be asked for when it is loaded
    if pydantic is not None and issubclass(hint, pydantic.BaseModel):
        return pydantic.TypeAdapter(hint).validate_python(value)
    return hint(**value) if dataclasses.is_dataclass(hint) else value


def to_json(value: Any) -> Any:
    """The value as JSON can hold it.

    Raises:
        PayloadError: it cannot.
    """
    try:
        return json.loads(json.dumps(value, default=_plainer))
    except (TypeError, ValueError, RecursionError) as error:
        raise PayloadError(f"the result cannot be told in JSON: {error}; return text, numbers, lists and objects of those") from error


def _plainer(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (set, frozenset, tuple)):
        return list(value)
    if isinstance(value, Mapping):
        return dict(value)
    for way in ("model_dump", "tolist", "isoformat", "item"):  # pydantic, numpy arrays and numbers, dates
        found = getattr(value, way, None)
        if callable(found) and not isinstance(value, type):
            return found()
    if isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError("bytes are not JSON; encode them, with base64 for example")
    raise TypeError(f"{type(value).__module__}.{type(value).__qualname__} is not JSON")


def failed(error: BaseException, message: str, trace: str) -> dict[str, Any]:
    """The answer of a job that failed, with all a client may want to know in the one field that no worker drops."""
    kind = f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
    told = {"error_type": kind, "error_message": message, "error_traceback": trace}
    return {"success": False, "error": json.dumps(told), "error_type": kind, "traceback": trace}
