"""``flame.v1.Frontend`` on the wire: messages in, `Cluster` asked, messages out."""

from __future__ import annotations

import asyncio
import functools
import hmac
import json
import logging
import os
import platform
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

import grpc

from flame_host.api import FlameError
from flame_host.engine.shares import this_machine
from flame_host.serve.cluster import Cluster
from flame_host.serve.records import DEFAULT_RESOURCES, SessionRecord
from flame_host.serve.refusals import Refusal, invalid, not_found
from flame_host.serve.store import StoreFullError
from flame_host.wire.convert import resources_to_proto
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2

log = logging.getLogger(__name__)

R = TypeVar("R")
_LIFE = {"STARTING": "ExecutorBinding", "READY": "ExecutorBound", "ENDING": "ExecutorUnbinding", "GONE": "ExecutorReleased"}


def answering(method: Callable[..., Awaitable[R]]) -> Callable[..., Awaitable[R]]:
    """A refusal, or a failure of ours, becomes a status."""

    @functools.wraps(method)
    async def answered(self: Frontend, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> R:
        try:
            return await method(self, request)
        except FlameError as error:
            await _abort(context, error)
            raise

    return answered


async def _abort(context: grpc.aio.ServicerContext[Any, Any], error: FlameError) -> None:
    status = "RESOURCE_EXHAUSTED" if isinstance(error, StoreFullError) else "INTERNAL"
    if isinstance(error, Refusal):
        status = error.status
    await context.abort(grpc.StatusCode[status], str(error))


class Frontend:
    """The service."""

    def __init__(self, cluster: Cluster, node: str) -> None:
        self._cluster = cluster
        self._node = node

    # ------------------------------------------------------------------------------------------------ applications

    @answering
    async def RegisterApplication(self, request: frontend_pb2.RegisterApplicationRequest) -> types_pb2.Result:
        _check(request)
        return await _result(self._cluster.register(request.name, request.application))

    @answering
    async def UpdateApplication(self, request: frontend_pb2.UpdateApplicationRequest) -> types_pb2.Result:
        _check(request)
        return await _result(self._cluster.update(request.name, request.application))

    @answering
    async def UnregisterApplication(self, request: frontend_pb2.UnregisterApplicationRequest) -> types_pb2.Result:
        return await _result(self._cluster.unregister(request.name))

    @answering
    async def GetApplication(self, request: frontend_pb2.GetApplicationRequest) -> types_pb2.Application:
        return self._cluster.application(request.name).message()

    @answering
    async def ListApplication(self, request: frontend_pb2.ListApplicationRequest) -> types_pb2.ApplicationList:
        return types_pb2.ApplicationList(applications=[record.message() for record in self._cluster.applications.values()])

    # ------------------------------------------------------------------------------------------------ the machine

    @answering
    async def ListExecutor(self, request: frontend_pb2.ListExecutorRequest) -> types_pb2.ExecutorList:
        executors = []
        for session in self._cluster.sessions.values():
            if session.running is not None:
                for executor in session.running.engine.executors:
                    executors.append(self._executor(session, executor))
        return types_pb2.ExecutorList(executors=executors)

    def _executor(self, session: SessionRecord, executor: Any) -> types_pb2.Executor:
        name = f"{session.session_id}/{executor.number}"
        resources = session.spec.resreq if session.spec.HasField("resreq") else DEFAULT_RESOURCES
        state = types_pb2.ExecutorState.Value(_LIFE[executor.life.name])
        return types_pb2.Executor(
            metadata=types_pb2.Metadata(id=name, name=name),
            spec=types_pb2.ExecutorSpec(node=self._node, resreq=resources),
            status=types_pb2.ExecutorStatus(state=types_pb2.ExecutorState.Name(state), session_id=session.session_id),
        )

    @answering
    async def ListNodes(self, request: frontend_pb2.ListNodesRequest) -> types_pb2.NodeList:
        return types_pb2.NodeList(nodes=[self._this_node()])

    @answering
    async def GetNode(self, request: frontend_pb2.GetNodeRequest) -> frontend_pb2.GetNodeResponse:
        if request.name != self._node:
            raise not_found(f"node <{request.name:.253}> not found")
        return frontend_pb2.GetNodeResponse(node=self._this_node())

    def _this_node(self) -> types_pb2.Node:
        capacity, _ = this_machine()
        return types_pb2.Node(
            metadata=types_pb2.Metadata(id=self._node, name=self._node),
            spec=types_pb2.NodeSpec(hostname=self._node),
            status=types_pb2.NodeStatus(
                state=types_pb2.Ready,
                capacity=resources_to_proto(capacity),
                allocatable=resources_to_proto(capacity),
                info=types_pb2.NodeInfo(arch=platform.machine(), os=os.uname().sysname.lower()),
            ),
        )

    # ------------------------------------------------------------------------------------------------ sessions

    @answering
    async def CreateSession(self, request: frontend_pb2.CreateSessionRequest) -> types_pb2.Session:
        if not request.HasField("session"):
            raise invalid("session spec")
        return (await self._cluster.create_session(request.session_id, request.session)).message()

    @answering
    async def OpenSession(self, request: frontend_pb2.OpenSessionRequest) -> types_pb2.Session:
        spec = request.session if request.HasField("session") else None
        return (await self._cluster.open_session(request.session_id, spec)).message()

    @answering
    async def CloseSession(self, request: frontend_pb2.CloseSessionRequest) -> types_pb2.Session:
        return (await self._cluster.close_session(request.session_id)).message()

    @answering
    async def DeleteSession(self, request: frontend_pb2.DeleteSessionRequest) -> types_pb2.Session:
        return (await self._cluster.delete_session(request.session_id)).message()

    @answering
    async def GetSession(self, request: frontend_pb2.GetSessionRequest) -> types_pb2.Session:
        return self._cluster.session(request.session_id).message()

    @answering
    async def ListSession(self, request: frontend_pb2.ListSessionRequest) -> types_pb2.SessionList:
        return types_pb2.SessionList(sessions=[session.message() for session in self._cluster.sessions.values()])

    # ------------------------------------------------------------------------------------------------ tasks

    @answering
    async def CreateTask(self, request: frontend_pb2.CreateTaskRequest) -> types_pb2.Task:
        if not request.HasField("task"):
            raise invalid("session spec")
        task = request.task
        answered: asyncio.Future[types_pb2.Task | FlameError] = asyncio.get_running_loop().create_future()

        def answer(told: types_pb2.Task | FlameError) -> None:
            if not answered.done():  # whoever asked may have gone
                answered.set_result(told)

        self._cluster.create_task(task.session_id, task.input if task.HasField("input") else None, answer)
        told = await answered
        if isinstance(told, FlameError):
            raise told
        return told

    @answering
    async def GetTask(self, request: frontend_pb2.GetTaskRequest) -> types_pb2.Task:
        return self._cluster.tasks.get(self._cluster.session(request.session_id), _number(request.task_id))

    async def WatchTask(
        self, request: frontend_pb2.WatchTaskRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[types_pb2.Task]:
        try:
            async for task in self._cluster.tasks.watch(self._cluster.session(request.session_id), _number(request.task_id)):
                yield task
        except FlameError as error:
            await _abort(context, error)

    async def ListTask(
        self, request: frontend_pb2.ListTaskRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> AsyncIterator[types_pb2.Task]:
        try:
            for task in self._cluster.tasks.list(self._cluster.session(request.session_id)):
                yield task
                await asyncio.sleep(0)  # a long list is not everybody's wait
        except FlameError as error:
            await _abort(context, error)


async def _result(work: Awaitable[None]) -> types_pb2.Result:
    """Most failures about applications are answers, not statuses."""
    try:
        await work
    except FlameError as error:
        if isinstance(error, Refusal) and error.status == "UNAVAILABLE":
            raise
        return types_pb2.Result(return_code=-1, message=str(error))
    return types_pb2.Result(return_code=0)


def _check(request: frontend_pb2.RegisterApplicationRequest | frontend_pb2.UpdateApplicationRequest) -> None:
    if not request.HasField("application"):
        raise invalid("applilcation spec is missed")  # as clusters spell it
    spec = request.application
    for name in ("input", "output", "common_data"):
        if spec.schema.HasField(name):
            _check_schema(name.replace("_", " "), getattr(spec.schema, name))
    if spec.working_directory and not os.path.isabs(spec.working_directory):
        raise invalid(f"working_directory must be an absolute path, got: {spec.working_directory:.300}")


def _check_schema(name: str, text: str) -> None:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise invalid(f"invalid {name} schema: {error}") from None
    problem = _problem_of_schema(schema)
    if problem:
        raise invalid(f"invalid {name} schema: {problem}")


def _problem_of_schema(schema: Any) -> str:
    """What is wrong with the outermost level of a JSON schema: what clients and flmctl read of it."""
    if isinstance(schema, bool):
        return ""
    if not isinstance(schema, dict):
        return f"{schema!r:.100} is not of types boolean, object"
    kinds = {"array", "boolean", "integer", "null", "number", "object", "string"}
    kind = schema.get("type", "object")
    if not (kind in kinds if isinstance(kind, str) else isinstance(kind, list) and kinds.issuperset(kind)):
        return f"{kind!r:.100} is no type"
    if not isinstance(schema.get("properties", {}), dict):
        return "properties is no object"
    if not isinstance(schema.get("required", []), list):
        return "required is no array"
    return ""


def _number(task_id: str) -> int:
    if not task_id.isascii() or not task_id.isdigit() or len(task_id) > 9:
        raise invalid("invalid task id")
    return int(task_id)


class TokenCheck(grpc.aio.ServerInterceptor):
    """Refuses whoever does not present the token."""

    def __init__(self, token: str) -> None:
        self._wanted = f"Bearer {token}".encode()

        async def refuse(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "this server wants a token: authorization: Bearer …")

        self._refusal: Any = grpc.unary_unary_rpc_method_handler(refuse)

    async def intercept_service(self, continuation: Any, details: grpc.HandlerCallDetails) -> Any:
        given = next((value for name, value in details.invocation_metadata or () if name == "authorization"), b"")
        given = given.encode() if isinstance(given, str) else given
        if hmac.compare_digest(given, self._wanted):
            return await continuation(details)
        return self._refusal
