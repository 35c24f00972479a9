"""Sessions that run, of each kind: what a task of theirs is to the engine, and what its outcome means to the cluster."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from flame_host.api import Application, FlameError, ObjectRef, Payload, SerializationError, buffer_view
from flame_host.engine.session import LocalSession
from flame_host.serve import frames
from flame_host.serve.jobs import Ending, Job
from flame_host.serve.relay import Program, Relay
from flame_host.wire import bson
from flame_host.wire.envelope import Tag, tag_of
from flame_host.wire.flame.v1 import types_pb2
from flame_host.wire.outcomes import OUTPUT_LIMIT, failure_of, failure_of_report

if TYPE_CHECKING:
    from flame_host.serve.executors import Executors

CODE = "cloudpickle/1"
_REFERENCE = b"REF\x00"


@dataclass(frozen=True)
class Outcome:
    """What a task came to: an output, or why there is none."""

    output: bytes | None = None
    failure: str | None = None


@dataclass(frozen=True)
class Opening:
    """What is needed to run a session. ``variables`` are told to every program."""

    session_id: str
    name: str
    application: types_pb2.ApplicationSpec
    spec: types_pb2.SessionSpec


class Running(Protocol):
    """A session that has executors, or gets them when there is work."""

    @property
    def engine(self) -> LocalSession: ...

    def submit(self, job: Job) -> None:
        """Raises `FlameError` when its input is of no use."""
        ...

    def outcome(self, job: Job, ending: Ending) -> Outcome: ...

    def close(self) -> None:
        """End the executors; takes a moment."""
        ...


class StockSession:
    """A Runner session of a stock client."""

    def __init__(self, executors: Executors, opening: Opening, data: bytes | None) -> None:
        self._objects = executors.objects
        self._prefix = f"{opening.name}/{opening.session_id}"
        self._key = bson.decode_reference(data).key if data and tag_of(data) is Tag.REFERENCE else ""
        if not data or tag_of(data) not in (Tag.REFERENCE, Tag.PICKLE):
            raise SerializationError(
                f"the session's common data is {tag_of(data).value}; it must hold a RunnerContext", hint="open the session with a Runner"
            )
        self._serializer = executors.host.serializer(CODE)
        spec = opening.application
        version = python_version(spec)
        client = executors.clients.get(version)
        self._client = str(client.packages) if client else ""
        application = Application(
            name=opening.name,
            package=executors.package(spec.url, opening.name) if spec.url and spec.installer else None,
            plan=executors.plan(),
            python_version=version,
            working_directory=spec.working_directory,
            environments={**{pair.name: pair.value for pair in spec.environments}, **executors.variables},
        )
        context = self._objects.get(self._key).data if self._key else data
        self.engine = executors.engine_session(opening, application, self._payload(context))

    def _payload(self, context: bytes) -> Payload:
        return Payload(CODE, self._serializer.dumps(_Carried(context, self._client)), ())

    def submit(self, job: Job) -> None:
        self.engine.submit(job, "invoke", frames.join((str(job.task_id).encode(), job.input)))

    def outcome(self, job: Job, ending: Ending) -> Outcome:
        return _outcome(ending, self._kept)

    def _kept(self, output: bytes | None, state: bytes | None) -> bytes | None:
        if state is not None:
            if self._key:
                self._objects.put(self._key, state)
            self.engine.spec = replace(self.engine.spec, common_data=self._payload(state))  # what the next worker begins with
        if output is None:
            return None
        if output.startswith(_REFERENCE):
            return output[len(_REFERENCE) :]
        stored = self._objects.put(self._prefix, output)
        return bson.encode_reference(ObjectRef(self._objects.endpoint, stored.key, stored.version))

    def close(self) -> None:
        self.engine.close()


class _Carried:
    """`served_worker.Served` on its way: by its source, for there is nothing of ours to import where it goes."""

    def __init__(self, context: bytes, client: str) -> None:
        self._context, self._client = context, client

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        names = {"__name__": "flame_host_served"}
        code = "(exec(compile(source, '<flame_host.serve.served_worker>', 'exec'), names), names['Served'](context, client))[1]"
        return eval, (code, {"source": _source(), "context": self._context, "client": self._client, "names": names})


@lru_cache(maxsize=1)
def _source() -> str:
    return Path(__file__).with_name("served_worker.py").read_text(encoding="utf-8")


class ProgramSession:
    """A session whose application serves ``flame.v1.Instance`` itself."""

    def __init__(self, executors: Executors, opening: Opening, data: bytes | None) -> None:
        program, self._lease = executors.program(opening, data)
        serializer = executors.host.serializer(CODE)
        # A command tells `_Services` that the worker is one of ours. Its package and its variables are the program's business.
        application = Application(name=opening.name, plan=executors.plan(), command=program.command or "-")
        self.engine = executors.engine_session(opening, application, Payload(CODE, serializer.dumps(_Ordered(program)), ()))

    def submit(self, job: Job) -> None:
        self.engine.submit(job, "invoke", frames.join((str(job.task_id).encode(), job.input)))

    def outcome(self, job: Job, ending: Ending) -> Outcome:
        return _outcome(ending, lambda output, state: output)

    def close(self) -> None:
        self.engine.close()
        if self._lease is not None:
            self._lease.release()


class _Ordered:
    """A `Relay` to be made in a worker."""

    def __init__(self, program: Program) -> None:
        self._program = program

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[object, ...]]:
        return Relay, (self._program,)


def _outcome(ending: Ending, kept: Callable[[bytes | None, bytes | None], bytes | None]) -> Outcome:
    """Of a worker that speaks `frames`: output, state, failure."""
    failure = _failure(ending)
    if failure is not None:
        return Outcome(failure=failure)
    try:
        whole = ending.data if not ending.buffers else b"".join([ending.data, *map(buffer_view, ending.buffers)])
        output, state, text = frames.split(whole)
    except ValueError as error:
        return Outcome(failure=f"the worker's answer cannot be read: {error}")
    if text is not None:
        return Outcome(failure=text.decode("utf-8", "replace"))
    try:
        output = kept(output, state)
    except FlameError as error:
        return Outcome(failure=f"the result cannot be kept: {error}")
    if output is not None and len(output) > OUTPUT_LIMIT:
        return Outcome(failure=f"the output has {len(output)} bytes and a message carries {OUTPUT_LIMIT}; put it into the cache")
    return Outcome(output)


def _failure(ending: Ending) -> str | None:
    if ending.report is not None:
        return failure_of_report(ending.report).text
    return failure_of(ending.error).text if ending.error is not None else None


def python_version(spec: types_pb2.ApplicationSpec) -> str:
    """What the application's variables ask for, or the cluster's: the server's own. Its files may name another, which is nobody's
    business here: pickled functions of one version crash the interpreter of another."""
    asked = next((pair.value.removeprefix("python") for pair in spec.environments if pair.name == "FLAME_PYTHON_VERSION"), "")
    return asked or f"{sys.version_info.major}.{sys.version_info.minor}"
