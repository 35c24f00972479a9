"""A Flame cluster for tests: ``flame.v1.Frontend`` in memory, over the simulated executor manager. Needs the extra ``grpc``.

It keeps to what real clusters do where a client can see it: results with codes, no events on watched tasks, streams that end without
a word, failures to bind among a session's events, tasks of a closed session cancelled. Applications are real processes.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc

from flame_host.testing.executor_manager import BindError, Binding, ExecutorManager, Registration
from flame_host.wire.flame.v1 import frontend_pb2, frontend_pb2_grpc, types_pb2

_TERMINAL = (types_pb2.Succeed, types_pb2.Failed, types_pb2.Cancelled)
_BIND_TRIES = 5


@dataclass
class _Session:
    spec: types_pb2.SessionSpec
    message: types_pb2.Session
    changed: threading.Condition
    tasks: dict[str, types_pb2.Task] = field(default_factory=dict)
    pending: deque[str] = field(default_factory=deque)
    executors: int = 0
    failures: int = 0
    lost: int = 0


class FakeCluster(frontend_pb2_grpc.FrontendServicer):
    """A running cluster; ``endpoint`` is where.

    Args:
        directory: for the sockets and logs of executors; keep its path short. cache: endpoint told to applications.
        executors: most that one session gets. port: to listen on, 0 for any.

    Attributes:
        cut: how many of the next watched streams end early, without an answer. made: tasks created so far.
    """

    def __init__(
        self, directory: Path, *, cache: str = "", executors: int = 2, port: int = 0, environment: dict[str, str] | None = None
    ) -> None:
        self.cut = 0
        self.made = 0
        self._most = executors
        self._lock = threading.RLock()
        self._applications: dict[str, types_pb2.Application] = {}
        self._sessions: dict[str, _Session] = {}
        self._names = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._closing = False
        self._server = grpc.server(ThreadPoolExecutor(32, thread_name_prefix="fake-frontend"))
        frontend_pb2_grpc.add_FrontendServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{port}")
        self.endpoint = f"http://127.0.0.1:{self.port}"
        self._manager = ExecutorManager(directory, endpoint=self.endpoint, cache=cache, environment=environment)
        self._server.start()

    def close(self) -> None:
        """End everything that runs."""
        with self._lock:
            self._closing = True
            for session in self._sessions.values():
                session.message.status.state = types_pb2.Closed
                with session.changed:
                    session.changed.notify_all()
        for thread in self._threads:
            thread.join(30)
        self._server.stop(0).wait(5)
        self._manager.close()

    def stop_answering(self) -> None:
        """The session manager goes away; what it knew is in this object, for another one on the same port."""
        self._server.stop(0).wait(5)

    def answer_again(self) -> None:
        self._server = grpc.server(ThreadPoolExecutor(32, thread_name_prefix="fake-frontend"))
        frontend_pb2_grpc.add_FrontendServicer_to_server(self, self._server)
        self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        self._server.start()

    def lose_executors(self, session_id: str) -> None:
        """Those of a session are gone, with what they had in memory; others are started in their place."""
        session = self._sessions[session_id]
        with session.changed:
            session.lost += 1
            session.executors, before = 0, session.executors
            session.changed.notify_all()
        for _ in range(before):
            self._grow(session_id, session)

    def __enter__(self) -> FakeCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------------ applications

    def RegisterApplication(self, request: frontend_pb2.RegisterApplicationRequest, context: grpc.ServicerContext) -> types_pb2.Result:
        if request.name in self._applications:
            return types_pb2.Result(return_code=-1, message=f"Application '{request.name}' already exists")
        self._applications[request.name] = types_pb2.Application(
            metadata=types_pb2.Metadata(id=request.name, name=request.name),
            spec=request.application,
            status=types_pb2.ApplicationStatus(creation_time=round(time.time() * 1000)),
        )
        return types_pb2.Result()

    def UpdateApplication(self, request: frontend_pb2.UpdateApplicationRequest, context: grpc.ServicerContext) -> types_pb2.Result:
        if request.name not in self._applications:
            return types_pb2.Result(return_code=-1, message=f"application <{request.name}> not found")
        self._applications[request.name].spec.CopyFrom(request.application)
        return types_pb2.Result()

    def UnregisterApplication(self, request: frontend_pb2.UnregisterApplicationRequest, context: grpc.ServicerContext) -> types_pb2.Result:
        open_ones = [s for s in self._sessions.values() if s.spec.application == request.name and s.message.status.state == types_pb2.Open]
        if open_ones:
            return types_pb2.Result(return_code=-1, message=f"application <{request.name}> has {len(open_ones)} open sessions")
        self._applications.pop(request.name, None)
        return types_pb2.Result()

    def GetApplication(self, request: frontend_pb2.GetApplicationRequest, context: grpc.ServicerContext) -> types_pb2.Application:
        if request.name not in self._applications:
            context.abort(grpc.StatusCode.NOT_FOUND, f"application <{request.name}> not found")
        return self._applications[request.name]

    def ListApplication(self, request: frontend_pb2.ListApplicationRequest, context: grpc.ServicerContext) -> types_pb2.ApplicationList:
        return types_pb2.ApplicationList(applications=list(self._applications.values()))

    # ------------------------------------------------------------------------------------------------ sessions

    def CreateSession(self, request: frontend_pb2.CreateSessionRequest, context: grpc.ServicerContext) -> types_pb2.Session:
        with self._lock:
            if request.session_id in self._sessions:
                context.abort(grpc.StatusCode.ALREADY_EXISTS, f"session <{request.session_id}> already exists")
            if request.session.application not in self._applications:
                context.abort(grpc.StatusCode.NOT_FOUND, f"application <{request.session.application}> not found")
            message = types_pb2.Session(
                metadata=types_pb2.Metadata(id=request.session_id, name=request.session_id),
                spec=request.session,
                status=types_pb2.SessionStatus(creation_time=round(time.time() * 1000)),
            )
            session = self._sessions[request.session_id] = _Session(request.session, message, threading.Condition())
        for _ in range(request.session.min_instances):
            self._grow(request.session_id, session)
        return message

    def CloseSession(self, request: frontend_pb2.CloseSessionRequest, context: grpc.ServicerContext) -> types_pb2.Session:
        session = self._session(request.session_id, context)
        with session.changed:
            if any(task.status.state == types_pb2.Running for task in session.tasks.values()):
                context.abort(grpc.StatusCode.INTERNAL, "Cannot close session with running tasks")
            for number in session.pending:
                session.tasks[number].status.state = types_pb2.Cancelled
            session.pending.clear()
            session.message.status.state = types_pb2.Closed
            session.changed.notify_all()
        return self._counted(session)

    def GetSession(self, request: frontend_pb2.GetSessionRequest, context: grpc.ServicerContext) -> types_pb2.Session:
        return self._counted(self._session(request.session_id, context))

    def ListSession(self, request: frontend_pb2.ListSessionRequest, context: grpc.ServicerContext) -> types_pb2.SessionList:
        return types_pb2.SessionList(sessions=[self._counted(session) for session in list(self._sessions.values())])

    def _session(self, session_id: str, context: grpc.ServicerContext) -> _Session:
        if session_id not in self._sessions:
            context.abort(grpc.StatusCode.NOT_FOUND, f"session <{session_id}> not found")
        return self._sessions[session_id]

    @staticmethod
    def _counted(session: _Session) -> types_pb2.Session:
        status = session.message.status
        states = [task.status.state for task in list(session.tasks.values())]
        status.pending, status.running = states.count(types_pb2.Pending), states.count(types_pb2.Running)
        status.succeed, status.failed = states.count(types_pb2.Succeed), states.count(types_pb2.Failed)
        return session.message

    # ------------------------------------------------------------------------------------------------ tasks

    def CreateTask(self, request: frontend_pb2.CreateTaskRequest, context: grpc.ServicerContext) -> types_pb2.Task:
        session = self._session(request.task.session_id, context)
        with session.changed:
            if session.message.status.state == types_pb2.Closed:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, "Cannot create task in closed session")
            self.made += 1
            number = str(len(session.tasks) + 1)
            task = types_pb2.Task(metadata=types_pb2.Metadata(id=number, name=number), spec=request.task)
            session.tasks[number] = task
            session.pending.append(number)
            session.changed.notify_all()
        if session.executors < min(session.spec.max_instances if session.spec.HasField("max_instances") else self._most, self._most):
            self._grow(request.task.session_id, session)
        return task

    def GetTask(self, request: frontend_pb2.GetTaskRequest, context: grpc.ServicerContext) -> types_pb2.Task:
        session = self._session(request.session_id, context)
        if request.task_id not in session.tasks:
            context.abort(grpc.StatusCode.NOT_FOUND, f"task <{request.task_id}> not found")
        return session.tasks[request.task_id]

    def WatchTask(self, request: frontend_pb2.WatchTaskRequest, context: grpc.ServicerContext) -> Iterator[types_pb2.Task]:
        with self._lock:
            cut, self.cut = self.cut > 0, max(0, self.cut - 1)
        session = self._sessions.get(request.session_id)
        if cut or session is None or request.task_id not in session.tasks:
            return
        seen = None
        while True:
            with session.changed:
                if session.tasks[request.task_id].status.state == seen:
                    session.changed.wait(0.5)
                task = types_pb2.Task()
                task.CopyFrom(session.tasks[request.task_id])
            if not context.is_active():
                return
            if task.status.state == seen:
                continue
            seen = task.status.state
            del task.status.events[:]
            if seen != types_pb2.Pending:
                yield task
            if seen in _TERMINAL:
                return

    def ListTask(self, request: frontend_pb2.ListTaskRequest, context: grpc.ServicerContext) -> Iterator[types_pb2.Task]:
        yield from list(self._session(request.session_id, context).tasks.values())

    # ------------------------------------------------------------------------------------------------ executors

    def _grow(self, session_id: str, session: _Session) -> None:
        with self._lock:
            session.executors += 1
            thread = threading.Thread(target=self._execute, args=(session_id, session), name=f"executor-{next(self._names)}", daemon=True)
            self._threads.append(thread)
        thread.start()

    def _execute(self, session_id: str, session: _Session) -> None:
        generation = session.lost
        binding = self._bind(session_id, session)
        if binding is None:
            return
        while (number := self._next(session, generation)) is not None:
            task = session.tasks[number]
            answer = binding.invoke(task.spec.input if task.spec.HasField("input") else None)
            with session.changed:
                if answer.ok:
                    if answer.output is not None:
                        task.spec.output = answer.output
                    task.status.state = types_pb2.Succeed
                else:
                    task.status.events.append(types_pb2.Event(code=types_pb2.Failed, message=answer.message))
                    task.status.state = types_pb2.Failed
                session.changed.notify_all()
        binding.unbind()

    def _bind(self, session_id: str, session: _Session) -> Binding | None:
        application = self._applications[session.spec.application]
        while not self._closing and session.message.status.state == types_pb2.Open:
            try:
                common = session.spec.common_data if session.spec.HasField("common_data") else None
                return self._manager.bind(registration_of(application), session_id, common)
            except BindError as error:
                text = f"Executor <x> on node <fake> failed to bind session with return_code <{error.code}>: "
                text += error.message if error.message.startswith("on_session_enter") else f"shim: {error.message}"
                with session.changed:
                    session.failures += 1
                    session.message.status.events.append(types_pb2.Event(code=1001, message=text))
                    if session.failures >= _BIND_TRIES:
                        session.message.status.events.append(types_pb2.Event(code=1002, message="retry limit reached"))
                        return None
        return None

    def _next(self, session: _Session, generation: int) -> str | None:
        with session.changed:
            while not session.pending or session.lost != generation:
                if session.lost != generation or session.message.status.state == types_pb2.Closed or self._closing:
                    return None
                session.changed.wait(0.5)
            number = session.pending.popleft()
            session.tasks[number].status.state = types_pb2.Running
            session.changed.notify_all()
            return number


def registration_of(application: types_pb2.Application) -> Registration:
    """How a manager is told of it."""
    spec = application.spec
    optional: dict[str, Any] = {
        name: getattr(spec, name)
        for name in ("url", "installer", "image", "working_directory")
        if spec.HasField(name) and getattr(spec, name)
    }
    arguments: Sequence[str] = tuple(spec.arguments)
    return Registration(application.metadata.name, spec.command, arguments, {e.name: e.value for e in spec.environments}, **optional)
