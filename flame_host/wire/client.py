"""The other end of ``flame.v1.Instance``: what an executor manager calls."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import grpc

from flame_host.wire.contexts import ApplicationContext
from flame_host.wire.flame.v1 import shim_pb2, shim_pb2_grpc, types_pb2
from flame_host.wire.outcomes import MESSAGE_LIMIT


@dataclass(frozen=True)
class Answer:
    """What came back.

    Attributes:
        code: of the answer. status: name of the gRPC status when there was no answer (``"UNAVAILABLE"``), else empty.
    """

    code: int
    message: str = ""
    output: bytes | None = None
    status: str = ""

    @property
    def ok(self) -> bool:
        return self.code == 0 and not self.status


class InstanceClient:
    """One connection, as a manager makes it: unary calls without a deadline, messages up to the cluster's limit.

    Args:
        limit: bytes of the largest message sent; a cluster has let nothing larger through to its managers.
    """

    def __init__(self, path: Path, *, limit: int = MESSAGE_LIMIT) -> None:
        options = [
            ("grpc.max_send_message_length", limit),
            ("grpc.max_receive_message_length", MESSAGE_LIMIT),
            # Managers name this authority, whatever the socket is; a server has to take any.
            ("grpc.default_authority", "[::]:50051"),
        ]
        self._channel = grpc.insecure_channel(f"unix:{path}", options=options)
        self._stub = shim_pb2_grpc.InstanceStub(self._channel)

    def enter(self, session_id: str, application: ApplicationContext, common_data: bytes | None = None) -> Answer:
        told = {name: value for name, value in vars(application).items() if value is not None}
        request = shim_pb2.SessionContext(session_id=session_id, application=shim_pb2.ApplicationContext(**told), common_data=common_data)
        try:
            result = self._stub.OnSessionEnter(request)
        except grpc.RpcError as error:
            return _broken(error)
        return Answer(result.return_code, result.message)

    def invoke(self, session_id: str, task_id: str, data: bytes | None = None, *, timeout: float | None = None) -> Answer:
        """Args:
        timeout: seconds; a manager sets none, a test may.
        """
        try:
            result = self._stub.OnTaskInvoke(shim_pb2.TaskContext(task_id=task_id, session_id=session_id, input=data), timeout=timeout)
        except grpc.RpcError as error:
            return _broken(error)
        return Answer(result.return_code, result.message, result.output if result.HasField("output") else None)

    def leave(self, *, timeout: float | None = None) -> Answer:
        try:
            result = self._stub.OnSessionLeave(types_pb2.EmptyRequest(), timeout=timeout)
        except grpc.RpcError as error:
            return _broken(error)
        return Answer(result.return_code, result.message)

    def close(self) -> None:
        self._channel.close()

    def __enter__(self) -> InstanceClient:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _broken(error: grpc.RpcError) -> Answer:
    """A call without an answer; the errors grpc raises from calls carry status and details."""
    assert isinstance(error, grpc.Call)
    return Answer(-1, error.details() or "", status=error.code().name)
