"""The host as an application process: a session of the cluster is a session of the embedded local engine.

One worker process at a time runs the tasks. When a task takes it down, that task fails with the reason and the next one gets a fresh
worker; nothing the user's code does ends this process.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from flame_host import Host
from flame_host.api import (
    Application,
    Buffer,
    ConfigError,
    Connection,
    FlameError,
    LogRecord,
    Payload,
    Plan,
    PluginError,
    Session,
    SessionError,
    SessionSpec,
    TaskError,
    buffer_view,
    check_format,
    intersect_policies,
)
from flame_host.wire.batches import CALLS
from flame_host.wire.contexts import SessionContext, TaskContext
from flame_host.wire.convert import application_of
from flame_host.wire.envelope import SessionOrder, kind_of
from flame_host.wire.hosting.batches import BatchRunner
from flame_host.wire.hosting.dialects import Dialect, EnvelopeDialect, PickleDialect, legacy_payload, order_of
from flame_host.wire.hosting.objects import Objects
from flame_host.wire.instance import serve
from flame_host.wire.lending import lend
from flame_host.wire.outcomes import Failure, ReturnCode, failure_of_report, with_report

log = logging.getLogger(__name__)

TIMEOUT_VARIABLE = "FLAME_TASK_TIMEOUT"
_PROBE = "__sizeof__"
"""A method every object has, that does nothing to it: its answer says that a worker is ready."""


def serve_host(path: Path) -> None:
    """Serve until SIGTERM. A host that cannot be made says so when a session is entered: a manager waits for ever for a socket."""
    service = HostedService()
    serve(service, path, on_stop=service.close)


class PendingCall:
    """A task of the local engine whose end somebody waits for."""

    frame: Any = None
    number = 0
    attempts = 0
    options: Any = None

    def __init__(self) -> None:
        self._ended = threading.Event()
        self._result: tuple[bytes, Sequence[Buffer]] | None = None
        self._report = b""
        self._error: BaseException | None = None

    def begin(self) -> bool:
        return True

    def succeed(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        if self._error is None:
            self._result = (data, tuple(buffers))
        self._ended.set()

    def fail_remotely(self, report: bytes) -> None:
        self._report = bytes(report)
        self._ended.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._ended.set()

    def done(self) -> bool:
        return self._ended.is_set()

    def open_stream(self) -> None:
        """The cluster's tasks have one output. Waiting for items would wait for ever: nobody takes them."""
        self.fail(TaskError("the task yields items, and a task of a cluster has one output", hint="return a list of them"))

    def stream(self, data: bytes, buffers: Sequence[Buffer]) -> None:
        """It has failed when it began."""

    def result(self, reports: bool = False) -> tuple[bytes, Sequence[Buffer]]:
        """Wait for its end.

        Args:
            reports: attach the worker's report to the failure's text, for a client that can read it.
        """
        self._ended.wait()
        if self._error is not None:
            raise self._error
        if self._result is None:
            failure = failure_of_report(self._report)
            raise Failure(failure.code, with_report(failure.text, self._report)) if reports else failure
        return self._result


class HostedService:
    """A `Service` that provisions the session's application and runs its tasks in workers.

    Args:
        make_host: called when the first session is entered.
    """

    def __init__(self, make_host: Callable[[], Host] = Host) -> None:
        self._make_host = make_host
        self._connection: Connection | None = None
        self._objects: Objects | None = None
        self._session: Session | None = None
        self._dialect: Dialect | None = None
        self._batches: BatchRunner | None = None
        self._plan = Plan()
        self._closing = threading.Lock()

    # ------------------------------------------------------------------------------------------------ Service

    def on_session_enter(self, context: SessionContext) -> None:
        self.on_session_leave()
        host = self._make_host()
        host.add_log_sink(self._log)
        self._objects = Objects(host, "local")
        order, target = order_of(context.common_data(), self._objects)
        application = application_of(context.application, order, host.catalog.all("archivers"))
        try:
            check_plan(host, application.plan)
            self._open(host, context, order, application, target)
        except FlameError as error:
            raise error.locate(application=application.name) from error.__cause__

    def on_task_invoke(self, context: TaskContext) -> bytes:
        if self._session is None or self._dialect is None:
            raise SessionError(f"task {context.task_id} came before its session was entered")
        if self._batches is not None and kind_of(context.input) == CALLS:
            return self._batches.run(context.input or b"")
        call = self._dialect.read(context.input)
        pending = PendingCall()
        self._session.submit(pending, call.method, call.data, call.buffers, call.references)
        try:
            data, buffers = pending.result(call.reports)
        except TaskError:
            self._session.cancel(pending, force=True)
            raise
        return self._dialect.write(Payload(self._plan.serializer, bytes(data), tuple(map(buffer_view, buffers))))

    def on_session_leave(self) -> None:
        self.close()

    def _log(self, record: LogRecord) -> None:
        _echo(record)
        if self._batches is not None:
            self._batches.hear(record)

    def close(self) -> None:
        """End the workers; a task under way fails. Idempotent, from any thread."""
        with self._closing:
            connection, self._connection = self._connection, None
            objects, self._objects = self._objects, None
            self._session = self._batches = None
        if connection is not None:
            connection.close()
        if objects is not None:
            objects.close()

    # ------------------------------------------------------------------------------------------------ opening

    def _open(
        self, host: Host, context: SessionContext, order: SessionOrder | None, application: Application, target: Payload | bytes
    ) -> None:
        assert self._objects is not None
        self._plan = application.plan
        serializer = host.serializer(application.plan.serializer)
        prefix = f"{application.name}/{context.session_id}"
        if order is not None:
            self._dialect = EnvelopeDialect(order, self._objects, prefix)
        else:
            self._dialect = PickleDialect(serializer, self._objects, prefix)
        lend()
        connection = self._connection = host.connect("local:")
        if connection.get_application(application.name) is not None:
            connection.unregister_application(application.name)
        connection.register_application(application)
        self._session = connection.open_session(
            SessionSpec(
                application=application.name,
                common_data=target if isinstance(target, Payload) else legacy_payload(serializer, target),
                session_id=context.session_id,
                stateful=order.stateful if order else False,
                instantiate=order.instantiate if order else False,
                min_instances=1,
                max_instances=1,
                warmup=1,
                # A client that says nothing leaves it to the cluster, which runs a task again where it sees fit.
                retries=order.retries if order else 0,
                checkpoint=order.checkpoint if order else 0,
                isolation=order.isolation if order else "",
                limits=order.limits if order else {},
                timeout=time_limit(order.timeout if order else 0.0),
            )
        )
        if order is not None:
            self._batches = BatchRunner(order, self._objects, prefix, self._session)
        self._wait_until_ready(serializer.dumps(((), {})))

    def _wait_until_ready(self, no_arguments: bytes) -> None:
        assert self._session is not None
        probe = PendingCall()
        self._session.submit(probe, _PROBE, no_arguments)
        try:
            probe.result()
        except Failure as failure:
            if failure.code is not ReturnCode.RAISED:  # an object may refuse to be measured, and is there all the same
                raise


def check_plan(host: Host, plan: Plan) -> None:
    """All that the plan names and this host has not, or does not allow, at once.

    Raises:
        FlameError: the only problem. PluginError: several, in one.
    """
    problems: list[FlameError] = []
    policy = intersect_policies(host.settings.policy, plan.policy)

    def decoder(format: str) -> None:
        check_format(format, host.serializer(format), policy)

    lookups: tuple[tuple[Callable[[str], object], str], ...] = (
        (host.catalog.installer, plan.installer),
        *((decoder, format) for format in plan.serializers),
        (host.cache, plan.cache),
    )
    for look_up, name in lookups:
        try:
            look_up(name)
        except FlameError as error:
            problems.append(error)
    if len(problems) == 1:
        raise problems[0]
    if problems:
        raise PluginError("this host lacks what the session's plan names:\n" + "\n".join(f"  {problem}" for problem in problems))


def time_limit(wanted: float) -> float:
    """Seconds a task may run: the client's wish and the operator's limit, whichever is shorter; 0 for none.

    Raises:
        ConfigError: the operator's limit is no number.
    """
    text = os.environ.get(TIMEOUT_VARIABLE, "")
    try:
        allowed = float(text or 0)
    except ValueError:
        raise ConfigError(f"{TIMEOUT_VARIABLE} is {text!r}", hint="set it to seconds, or 0 for no limit") from None
    return min((limit for limit in (wanted, allowed) if limit > 0), default=0.0)


def _echo(record: LogRecord) -> None:
    """Workers' output goes where a manager looks for it: our own."""
    stream = sys.stdout if record.stream == "stdout" else sys.stderr
    stream.write(record.text)
    stream.flush()
