"""The cluster's own runner: its pickles, written without its modules, for values that are encoded already and stay so.

What it unpickles has to be a ``RunnerContext`` for the session and a ``RunnerRequest`` for each task. The pickles written here carry
the source that makes both on its side, where its modules are. Its results stand in the cache.
"""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Sequence
from typing import Any

from flame_engine_flame.dialects import INLINE_LIMIT, Entry
from flame_host.api import Application, ConfigError, HostServices, ObjectStore, Payload, SerializationError, SessionSpec, buffer_view
from flame_host.wire import bson
from flame_host.wire.batches import BatchOutcome, CallOutcome

_FORMAT = "cloudpickle/1"
_INPUT_LIMIT = (4 << 20) - (64 << 10)
_ADVICE = "register our host in the cluster, which can:  flame-host template  (docs/how-to/run-on-flame.md)"

_SOURCE = '''
import inspect, io, pickle

class Opener(pickle.Unpickler):
    """Reads a value of ours; what its references stand for comes with it."""

    def __init__(self, data, buffers, references):
        super().__init__(io.BytesIO(data), buffers=buffers)
        self.references = references

    def find_class(self, module, name):
        if name == "_resolve" and module == "flame_serialize_cloudpickle.codec":
            return lambda index: opened(*self.references[index])
        return super().find_class(module, name)

def opened(data, buffers=(), references=()):
    if type(data) is tuple:  # it stands in the cache
        from flamepy.core import ObjectRef, get_object
        data, buffers = get_object(ObjectRef(*data))
    return Opener(data, [bytearray(buffer) for buffer in buffers], references).load()

def context(value, instantiate, ordered, warmup):
    from flamepy.runner.types import RunnerContext
    target = opened(*value)
    if instantiate and not inspect.isclass(target):  # a class with arguments for its constructor
        target = target()
    if callable(target):
        return RunnerContext(execution_object=target, autoscale=not ordered, warmup=warmup)
    return RunnerContext(execution_object=target)

def request(method, value):
    from flamepy.runner.types import RunnerRequest
    args, kwargs = opened(*value)
    return RunnerRequest(method=method or None, args=args, kwargs=kwargs)
'''
_EXPRESSION = "(exec(compile(source, '<flame-engine-flame>', 'exec'), names), names[function](*args))[1]"


class _Made:
    """Unpickles as what a function of the source makes of the arguments; nothing but builtins is needed for it."""

    def __init__(self, function: str, *args: object) -> None:
        self._names = {"source": _SOURCE, "function": function, "args": args, "names": {"__name__": "flame_engine_flame_values"}}

    def __reduce__(self) -> Any:
        return eval, (_EXPRESSION, self._names)


class StockDialect:
    """Written for Flame 0.6."""

    gathers = False

    def __init__(self, application: Application, spec: SessionSpec, session_id: str, objects: ObjectStore, services: HostServices) -> None:
        self._objects = objects
        self._prefix = f"{application.name}/{session_id}"
        self._spec = spec
        self._refuse_options(spec)
        target = services.serializer(_FORMAT).loads(spec.common_data.data, buffers=[buffer_view(part) for part in spec.common_data.buffers])
        self._streaming = _streaming_methods(target)
        if "" in self._streaming:
            raise _streams("the function", self._streaming[""])

    @staticmethod
    def _refuse_options(spec: SessionSpec) -> None:
        if spec.common_data.format != _FORMAT:
            raise ConfigError(f"a service of format {spec.common_data.format!r}: the cluster's own runner reads cloudpickle", hint=_ADVICE)
        refused = [name for name in ("timeout", "checkpoint", "isolation", "limits") if getattr(spec, name)]
        if refused:
            raise ConfigError(f"{', '.join(refused)}: the cluster's own runner has no such option", hint=_ADVICE)

    # ------------------------------------------------------------------------------------------------ Dialect

    def common_data(self) -> bytes:
        spec = self._spec
        made = _Made("context", self._value(spec.common_data), spec.instantiate, spec.stateful, spec.warmup)
        ref = self._objects.put(self._prefix, Payload(_FORMAT, pickle.dumps(pickle.dumps(made, 4), 4)))
        return bson.encode_reference(ref)

    def refusal(self, method: str, timeout: float) -> ConfigError | None:
        if method in self._streaming:
            return _streams(f"method {method!r}", self._streaming[method])
        return ConfigError("timeout of a call: the cluster's own runner has no such option", hint=_ADVICE) if timeout else None

    def write(self, entries: Sequence[Entry]) -> bytes:
        (entry,) = entries
        references = tuple(self._value(reference) for reference in entry.references)
        value = (*self._value(Payload(_FORMAT, entry.data, tuple(entry.buffers))), references)
        data = pickle.dumps(_Made("request", entry.method, value), 4)
        if len(data) > _INPUT_LIMIT:
            raise SerializationError(f"the arguments have {len(data)} bytes in many parts, and a cluster's message {_INPUT_LIMIT}")
        return data

    def _value(self, payload: Payload) -> tuple[Any, ...]:
        """Arguments for ``opened``: the value itself, or where it was put."""
        if payload.format != _FORMAT:
            raise SerializationError(f"an argument of format {payload.format!r}: the cluster's own runner reads cloudpickle", hint=_ADVICE)
        buffers = [bytes(buffer_view(buffer)) for buffer in payload.buffers]
        if payload.size <= INLINE_LIMIT:
            return payload.data, buffers
        ref = self._objects.put(self._prefix, Payload(_FORMAT, pickle.dumps((payload.data, buffers), 4)))
        return (ref.endpoint, ref.key, ref.version), []

    def read(self, output: bytes | None, entries: Sequence[Entry]) -> BatchOutcome:
        if output is None:
            raise SerializationError("the cluster's own runner has answered without saying where its result stands")
        payload = self._objects.get(bson.decode_reference(output))
        return BatchOutcome((CallOutcome(payload),), seconds=1.0)  # calls go singly here, whatever they take

    def needs_cache(self, entries: Sequence[Entry]) -> bool:
        return any(entry.payload_size > INLINE_LIMIT for entry in entries)

    def reads_cache(self, output: bytes | None) -> bool:
        return True


def _streaming_methods(target: object) -> dict[str, str]:
    """Method → what it is, for those whose result is no value; the empty name is the target itself."""
    found = {}
    names = () if inspect.isroutine(target) else tuple(name for name in dir(type(target) if not inspect.isclass(target) else target))
    for name, function in (("", target), *((name, inspect.getattr_static(target, name, None)) for name in names)):
        function = getattr(function, "__func__", function)
        for kind, test in (
            ("a generator", inspect.isgeneratorfunction),
            ("a generator", inspect.isasyncgenfunction),
            ("a coroutine", inspect.iscoroutinefunction),
        ):
            if test(function) and not name.startswith("__"):
                found[name] = kind
    return found


def _streams(what: str, kind: str) -> ConfigError:
    return ConfigError(f"{what} is {kind}, and the cluster's own runner takes only what returns its value", hint=_ADVICE)
