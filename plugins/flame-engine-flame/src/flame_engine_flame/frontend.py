"""The cluster's session manager: ``flame.v1.Frontend``, with its errors as ours, deadlines, and patience while it is restarted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc

from flame_engine_flame.endpoint import Cluster
from flame_host.api import (
    ApplicationError,
    ApplicationExistsError,
    ApplicationNotFoundError,
    ConfigError,
    FlameError,
    SessionError,
    SessionNotFoundError,
    WorkerError,
)
from flame_host.wire.flame.v1 import frontend_pb2, frontend_pb2_grpc, types_pb2

SECONDS = 30.0
"""One unary call may take."""
PATIENCE = 120.0
"""Seconds a session manager may be away before what waits for it fails."""
FIRST_PATIENCE = 5.0
"""The same when a connection is made: an endpoint with a typing error should say so soon."""
_TERMINAL = (types_pb2.Succeed, types_pb2.Failed, types_pb2.Cancelled)
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)
_LIMIT = 64 << 20  # of what comes in; what goes out has to fit the cluster's own limit
_OPTIONS = [
    ("grpc.max_receive_message_length", _LIMIT),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
]


class Frontend:
    """All methods belong to the loop's thread."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._channel: Any = None
        self._made: Any = None

    async def close(self) -> None:
        if self._channel is not None:
            await self._channel.close()

    @property
    def _stub(self) -> Any:
        if self._made is None:
            cluster = self._cluster
            if cluster.encrypted:
                self._channel = grpc.aio.secure_channel(cluster.target, _credentials(cluster.ca_file), options=_OPTIONS)
            else:
                self._channel = grpc.aio.insecure_channel(cluster.target, options=_OPTIONS)
            self._made = frontend_pb2_grpc.FrontendStub(self._channel)
        return self._made

    async def call(self, method: str, request: Any, *, patience: float = PATIENCE, again: bool = True) -> Any:
        """One unary call.

        Args:
            patience: seconds to try again while nobody answers. again: it may be made twice: doing so changes nothing more.

        Raises:
            FlameError: the cluster's answer, or that there is none.
        """
        end = time.monotonic() + patience
        delay = 0.1
        while True:
            left = end - time.monotonic()
            try:
                return await getattr(self._stub, method)(
                    request, timeout=max(0.1, min(SECONDS, left)), wait_for_ready=patience > FIRST_PATIENCE
                )
            except grpc.aio.AioRpcError as error:
                if error.code() not in _AWAY or not again or time.monotonic() + delay >= end:
                    raise self._told(method, error) from error
            await asyncio.sleep(delay)
            delay = min(2.0, delay * 2)

    async def done(self, method: str, request: Any) -> None:
        """A call that is answered with a result, whose code says whether it was done."""
        result = await self.call(method, request)
        if result.return_code:
            raise _refused(method, result.message or f"code {result.return_code}")

    async def listed(self, method: str, request: Any) -> list[Any]:
        return [item async for item in self._items(method, request)]

    async def _items(self, method: str, request: Any) -> AsyncIterator[Any]:
        try:
            async for item in getattr(self._stub, method)(request, timeout=SECONDS, wait_for_ready=True):
                yield item
        except grpc.aio.AioRpcError as error:
            raise self._told(method, error) from error

    async def watch(self, session_id: str, task_id: str) -> types_pb2.Task:
        """The task when it has ended. A stream that breaks off, or ends early, is looked after and begun again."""
        request = frontend_pb2.WatchTaskRequest(session_id=session_id, task_id=task_id)
        delay = 0.02
        while True:
            try:
                async for task in self._stub.WatchTask(request, wait_for_ready=True):
                    if task.status.state in _TERMINAL:
                        return task  # type: ignore[no-any-return]
                    delay = 0.02
            except grpc.aio.AioRpcError as error:
                if error.code() not in (*_AWAY, grpc.StatusCode.CANCELLED, grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN):
                    raise self._told("WatchTask", error) from error
            task = await self.call("GetTask", frontend_pb2.GetTaskRequest(session_id=session_id, task_id=task_id))
            if task.status.state in _TERMINAL:
                return task  # type: ignore[no-any-return]
            await asyncio.sleep(delay)
            delay = min(2.0, delay * 2)

    async def text_of_failure(self, task: types_pb2.Task) -> str:
        """What the application said. A cluster keeps it among the task's events, which not every answer brings."""
        if not task.status.events:
            request = frontend_pb2.GetTaskRequest(session_id=task.spec.session_id, task_id=task.metadata.id)
            try:
                task = await self.call("GetTask", request)
            except FlameError as error:
                return f"the task failed, and why cannot be asked: {error.message}"
        texts = [event.message for event in task.status.events if event.code == types_pb2.Failed and event.message]
        return texts[-1] if texts else "the task failed; the cluster has no reason"

    def _told(self, method: str, error: grpc.aio.AioRpcError) -> FlameError:
        text = error.details() or error.code().name
        if error.code() in _AWAY:
            return WorkerError(
                f"the cluster {self._cluster.endpoint} cannot be reached: {text}",
                hint="check the endpoint, that its session manager is running, and with https the certificates (ca_file)",
            )
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return _missing(method)(text)
        if error.code() is grpc.StatusCode.ALREADY_EXISTS:
            return (ApplicationExistsError if "Application" in method else SessionError)(text)
        return _refused(method, text)


def _credentials(ca_file: str) -> grpc.ChannelCredentials:
    if not ca_file:
        return grpc.ssl_channel_credentials()
    try:
        return grpc.ssl_channel_credentials(Path(ca_file).read_bytes())
    except OSError as error:
        raise ConfigError(f"the certificates in {ca_file} cannot be read: {error}", hint="check tls: {ca_file: …} in flame.yaml") from error


def _missing(method: str) -> type[FlameError]:
    return ApplicationNotFoundError if "Application" in method else SessionNotFoundError


def _refused(method: str, text: str) -> FlameError:
    if "Application" not in method:
        return SessionError(f"the cluster refused {method}: {text}")
    if "already exists" in text:
        return ApplicationExistsError(text, hint="choose another name, or Runner(overwrite=True)")
    if "not found" in text.lower():
        return ApplicationNotFoundError(text)
    return ApplicationError(f"the cluster refused {method}: {text}")
