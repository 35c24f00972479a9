"""Applications and sessions as the server holds them, and the messages of the wire that tell about them."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass, field
from typing import Any

from flame_host.api import SessionState, TaskState
from flame_host.serve.jobs import Job
from flame_host.serve.running import Running
from flame_host.serve.store import SessionRow, TaskRow
from flame_host.wire.flame.v1 import types_pb2

DEFAULT_RESOURCES = types_pb2.ResourceRequirement(cpu=1, memory=1 << 30, gpu=0)
BIND_FAILED = 1001
_MOST_EVENTS = 100


@dataclass
class ApplicationRecord:
    """Times in milliseconds."""

    name: str
    spec: types_pb2.ApplicationSpec
    creation: int

    def message(self) -> types_pb2.Application:
        return types_pb2.Application(
            metadata=types_pb2.Metadata(id=self.name, name=self.name),
            spec=self.spec,
            status=types_pb2.ApplicationStatus(state=types_pb2.Enabled, creation_time=self.creation),
        )


@dataclass
class SessionRecord:
    """A session, open or closed.

    Attributes:
        live: tasks that have not ended, by number. counts: of those that have, by state.
        running: its executors, once it has any; waiting: jobs that wait for them. opening: they are being made.
        held: nothing of it is to begin any more: the server ends. saved: it is in the store.
    """

    number: int
    session_id: str
    spec: types_pb2.SessionSpec
    creation: int
    began: deque[Job]
    completion: int | None = None
    events: list[types_pb2.Event] = field(default_factory=list)
    last_task: int = 0
    live: dict[int, Job] = field(default_factory=dict)
    counts: dict[int, int] = field(default_factory=dict)
    running: Running | None = None
    waiting: list[Job] = field(default_factory=list)
    opening: asyncio.Task[None] | None = None
    held: bool = False
    saved: asyncio.Future[None] | None = None

    @property
    def is_open(self) -> bool:
        return self.completion is None

    def began_task(self, job: Job) -> None:
        self.began.append(job)

    def row(self) -> SessionRow:
        events = types_pb2.SessionStatus(events=self.events).SerializeToString()
        return SessionRow(self.number, self.session_id, self.spec.SerializeToString(), self.creation, self.completion, events)

    def add_event(self, code: int, message: str, when: int) -> None:
        if len(self.events) < _MOST_EVENTS:
            self.events.append(types_pb2.Event(code=code, message=message, creation_time=when))

    def message(self) -> types_pb2.Session:
        running = sum(1 for job in self.live.values() if job.started)
        if self.running is not None:
            running = min(running, self.running.engine.info().running)
        status = types_pb2.SessionStatus(
            state=types_pb2.SessionState.Name(SessionState.OPEN if self.is_open else SessionState.CLOSED),
            creation_time=self.creation,
            pending=len(self.live) - running,
            running=running,
            succeed=self.counts.get(TaskState.SUCCEED, 0),
            failed=self.counts.get(TaskState.FAILED, 0),
            cancelled=self.counts.get(TaskState.CANCELLED, 0),
            events=self.events,
        )
        if self.completion is not None:
            status.completion_time = self.completion
        told = types_pb2.Session(metadata=types_pb2.Metadata(id=self.session_id, name=self.session_id), spec=self.spec, status=status)
        if not self.spec.HasField("resreq"):  # a cluster tells what it fills in
            told.spec.resreq.CopyFrom(DEFAULT_RESOURCES)
        return told


def session_of(row: SessionRow, began: deque[Job]) -> SessionRecord:
    status = types_pb2.SessionStatus.FromString(row.events)
    spec = types_pb2.SessionSpec.FromString(row.spec)
    return SessionRecord(row.number, row.session_id, spec, row.creation, began, row.completion, list(status.events))


def live_task(session: SessionRecord, job: Job) -> types_pb2.Task:
    """A task that has not been forgotten yet, as it is now."""
    row = TaskRow(job.task_id, job.creation, job.input, job.end, job.started, job.completion, job.output, job.message)
    return kept_task(session, row)


def kept_task(session: SessionRecord, row: TaskRow) -> types_pb2.Task:
    """A task, with the events that led to where it is."""
    end = row.state
    state = end if end is not None else TaskState.RUNNING if row.started else TaskState.PENDING
    status = types_pb2.TaskStatus(state=_STATES[state], creation_time=row.creation)
    add = status.events.add
    add(code=TaskState.PENDING, message="Task was created with state <Pending>", creation_time=row.creation)
    if row.started:
        add(code=TaskState.RUNNING, message="Task state was updated to <Running>", creation_time=row.started)
    if end is not None:
        status.completion_time = row.completion
    if end == TaskState.SUCCEED:
        add(code=TaskState.SUCCEED, message="Task was completed with state <Succeed>", creation_time=row.completion)
    elif end == TaskState.FAILED:
        add(code=TaskState.FAILED, message=row.message or "Task failed with state <Failed>", creation_time=row.completion)
    spec = types_pb2.TaskSpec(session_id=session.session_id, input=row.input, output=row.output if end is not None else None)
    name = str(row.task_id)
    return types_pb2.Task(metadata=types_pb2.Metadata(id=name, name=name), spec=spec, status=status)


_STATES: dict[int, Any] = {int(state): types_pb2.TaskState.Name(state) for state in TaskState}
