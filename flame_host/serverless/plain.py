"""Jobs in plain JSON: ``{"n": 5}`` calls the one function with ``n=5``, and its value is the answer.

Where an endpoint has several functions, ``function_name`` says which; what it is given are the other keys, or the object under
``input``. Of a class, ``method`` says which method of the one instance. The answer of a job that fails holds, under ``error``, the JSON
text in which the platforms' own workers tell exceptions: ``error_type``, ``error_message``, ``error_traceback``.
"""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import sys
import typing
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from types import NoneType, UnionType
from typing import Any

from flame_host.serverless.execution import Instances, completed, is_declared, on_loop, on_quiet_thread, original
from flame_host.serverless.formats import PayloadError
from flame_host.serverless.signatures import signature_of

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
            return _applied(self.target, self.given)
        instance = instances.get((self.target, "plain"), self.target)
        return _applied(getattr(instance, self._method()), self.given)

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


def _applied(target: Callable[..., Any], given: Mapping[str, Any]) -> Any:
    """Call it with arguments by name, of the types the function says where those are made of objects.

    Raises:
        TypeError: they do not fit, told before anything is called.
    """
    signature = signature_of(target)
    if signature is None:
        return target(**given)
    parameters = signature.parameters
    hints = _hints(target)
    taken = dict(given)
    open_ended = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    if not open_ended and not taken.keys() <= parameters.keys():
        taken = _as_one(taken, parameters, hints)
    named = {name: made_of(value, hints.get(name)) for name, value in taken.items()}
    by_place = [name for name, parameter in parameters.items() if parameter.kind is parameter.POSITIONAL_ONLY and name in named]
    leading = [named.pop(name) for name in by_place]
    try:
        bound = signature.bind(*leading, **named)
    except TypeError as error:
        raise TypeError(f"{getattr(target, '__qualname__', target)}(): {error}") from None
    return target(*bound.args, **bound.kwargs)


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


def made_of(value: Any, hint: Any) -> Any:
    """The value as the hint has it, as far as that is made of dataclasses and models of pydantic: ``Point``, ``list[Point] | None``."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return made_of(value, inner[0])
    if isinstance(value, Mapping):
        if inspect.isclass(hint):
            return _object_of(value, hint)
        if origin is dict and len(inner) == 2:
            return {key: made_of(entry, inner[1]) for key, entry in value.items()}
    if isinstance(value, list) and origin in (list, set, frozenset, tuple, Sequence, Iterable) and inner:
        made = [made_of(entry, inner[0]) for entry in value]
        return origin(made) if origin in (set, frozenset, tuple) and made != value else made
    if origin in (typing.Union, UnionType):
        return _one_of(value, [kind for kind in inner if kind is not NoneType])
    return value


def _object_of(value: Mapping[str, Any], kind: type) -> Any:
    pydantic: Any = sys.modules.get("pydantic")  # a class of it can only be asked for when it is loaded
    if pydantic is not None and issubclass(kind, pydantic.BaseModel):
        return pydantic.TypeAdapter(kind).validate_python(value)
    if not dataclasses.is_dataclass(kind):
        return value
    hints = _hints(kind)
    return kind(**{name: made_of(entry, hints.get(name)) for name, entry in value.items()})


def _one_of(value: Any, kinds: list[Any]) -> Any:
    """Of the first kind that it can be made of; the only one says itself what is wrong."""
    if len(kinds) == 1:
        return made_of(value, kinds[0])
    for kind in kinds:
        with contextlib.suppress(TypeError, ValueError):
            if (made := made_of(value, kind)) is not value:
                return made
    return value


def to_json(value: Any) -> Any:
    """The value as JSON can hold it.

    Raises:
        PayloadError: it cannot.
    """
    try:
        text = json.dumps(value, default=_plainer, ensure_ascii=False, allow_nan=False)
        return json.loads(text.encode())  # what cannot be encoded never reaches a client
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
