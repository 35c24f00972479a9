"""How sessions and calls are written for whoever serves them: our host. See `stock` for the cluster's own runner."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from flame_host.api import Application, Buffer, CacheError, ConfigError, FlameError, ObjectRef, ObjectStore, Payload, SessionSpec, Task
from flame_host.wire.batches import BatchCall, BatchOutcome, decode_outcomes, encode_calls, where_outcomes_are
from flame_host.wire.envelope import Content, SessionOrder, encode_session, plan_digest

INLINE_LIMIT = 1 << 20
"""Bytes of a value that travels within a message; the cluster's limit is 4 MiB for all of it."""
BATCH_BYTES = 2 << 20


@dataclass(frozen=True)
class Entry:
    """A call that waits to be sent."""

    task: Task
    method: str
    data: bytes
    buffers: Sequence[Buffer]
    references: Sequence[Payload]

    @property
    def payload_size(self) -> int:
        return sum(payload.size for payload in (Payload("", self.data, tuple(self.buffers)), *self.references))


class Dialect(Protocol):
    """Writes what a session's tasks carry, and reads what comes back. May wait for the cache, so it runs beside the loop."""

    @property
    def gathers(self) -> bool:
        """Whether one task of the cluster may carry many calls."""
        ...

    def common_data(self) -> bytes: ...

    def refusal(self, method: str, timeout: float) -> FlameError | None:
        """Why a call cannot be made, if so. Asked by whoever makes it."""
        ...

    def write(self, entries: Sequence[Entry]) -> bytes: ...

    def read(self, output: bytes | None, entries: Sequence[Entry]) -> BatchOutcome: ...

    def needs_cache(self, entries: Sequence[Entry]) -> bool:
        """Whether `write` would wait."""
        ...

    def reads_cache(self, output: bytes | None) -> bool:
        """Whether `read` would wait."""
        ...


class HostDialect:
    """Our host: envelopes, many calls in each, large values through the cache."""

    gathers = True

    def __init__(self, application: Application, spec: SessionSpec, session_id: str, objects: ObjectStore) -> None:
        plan = application.plan
        if spec.common_data.format not in plan.serializers:
            raise ConfigError(
                f"a service of format {spec.common_data.format!r}; the application's plan admits {', '.join(plan.serializers)}"
            )
        if plan.serializer != spec.common_data.format:  # both ends write in the format the session begins with
            plan = replace(
                plan, serializers=(spec.common_data.format, *(name for name in plan.serializers if name != spec.common_data.format))
            )
        self._application = application
        self._plan = plan
        self._digest = plan_digest(plan)
        self._spec = spec
        self._objects = objects
        self._prefix = f"{application.name}/{session_id}"

    def common_data(self) -> bytes:
        spec, application = self._spec, self._application
        return encode_session(
            SessionOrder(
                content=self._small(spec.common_data),
                plan=self._plan,
                stateful=spec.stateful,
                instantiate=spec.instantiate,
                timeout=spec.timeout,
                retries=spec.retries,
                checkpoint=spec.checkpoint,
                isolation=spec.isolation,
                limits=spec.limits,
                package=application.package,
                dependencies=application.dependencies,
                python_version=application.python_version,
            )
        )

    def refusal(self, method: str, timeout: float) -> FlameError | None:
        return None

    def write(self, entries: Sequence[Entry]) -> bytes:
        return encode_calls([self._call(entry) for entry in entries], self._plan.serializer, self._digest)

    def _call(self, entry: Entry) -> BatchCall:
        options = entry.task.options
        content = self._small(Payload(self._plan.serializer, entry.data, tuple(entry.buffers)))
        references = tuple(self._small(reference) for reference in entry.references)
        return BatchCall(content, entry.method, references, entry.task.number, (options.timeout or 0.0) if options else 0.0)

    def read(self, output: bytes | None, entries: Sequence[Entry]) -> BatchOutcome:
        if output is None:
            raise CacheError("the cluster has no output of the task")
        elsewhere = where_outcomes_are(output)
        if elsewhere is not None:
            output = self._fetch(elsewhere).data
        batch = decode_outcomes(output)
        if not any(isinstance(outcome.content, ObjectRef) for outcome in batch.outcomes):
            return batch
        outcomes = []
        for outcome in batch.outcomes:
            try:
                here = self._fetch(outcome.content) if isinstance(outcome.content, ObjectRef) else outcome.content
                outcomes.append(replace(outcome, content=here))
            except FlameError as error:
                outcomes.append(replace(outcome, content=None, error=error))
        return replace(batch, outcomes=tuple(outcomes))

    def needs_cache(self, entries: Sequence[Entry]) -> bool:
        return any(entry.payload_size > INLINE_LIMIT for entry in entries)

    def reads_cache(self, output: bytes | None) -> bool:
        return (output is not None and b'"reference"' in output[:65536]) or b'"elsewhere"' in (output or b"")[:256]

    def _small(self, payload: Payload) -> Content:
        """The payload, or where it was put. The cluster's cache may have another name for its nodes than for us, so none is told."""
        if payload.size <= INLINE_LIMIT:
            return payload
        return replace(self._objects.put(self._prefix, payload), endpoint="")

    def _fetch(self, ref: ObjectRef) -> Payload:
        payload = self._objects.get(ref)
        self._objects.delete(ref.key)  # it was made for this one answer
        return payload
