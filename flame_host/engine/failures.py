"""What becomes of a task whose worker was lost. Pure decisions over values."""

from __future__ import annotations

import json
import signal
from typing import NamedTuple

from flame_host.api import ClosedError, StateLostError, WorkerCrashedError, WorkerStartError
from flame_host.worker.process import WorkerExit

_FROM_OUTSIDE = frozenset({signal.SIGKILL, signal.SIGTERM, signal.SIGHUP, signal.SIGINT})
"""Signals that say nothing against the task, or the start; it is tried again. A segmentation fault does."""


class Loss(NamedTuple):
    """One task of a lost worker.

    Attributes:
        running: it was the one that had the worker. attempts: how often it has had one by now, this time included.
        retries: how often it may be tried again. items: whether items of its stream have been delivered.
        forgets: the service's state goes with the worker. used: the worker had begun some task.
        blamed: why the worker was killed, when this task is the reason or the one that ran.
        closed: the session is closed.
    """

    number: int
    running: bool
    attempts: int
    retries: int
    items: bool
    forgets: bool
    used: bool
    blamed: Exception | None
    closed: str


def from_outside(how: WorkerExit) -> bool:
    """Whether the end of a worker says nothing about what it did."""
    return how.code is None and (how.signal is None or how.signal in _FROM_OUTSIDE)


def verdict(loss: Loss, how: WorkerExit) -> Exception | None:
    """Why this task fails, or None if it is to be tried again."""
    if loss.blamed is not None:
        return loss.blamed
    if loss.closed and not loss.running:
        return ClosedError(f"session {loss.closed} was closed before task {loss.number} ran")
    if loss.forgets and loss.used:
        return crashed(loss.number, how, "its state went with it") if loss.running else state_lost(how)
    if not loss.running:
        return None
    if loss.items:
        return crashed(loss.number, how, "not tried again, for some of its items have been delivered")
    if not from_outside(how):
        return crashed(loss.number, how, "not tried again, for it would do so again")
    if loss.attempts <= loss.retries:
        return None
    return crashed(loss.number, how, f"tried {loss.attempts} times")


def crashed(number: int, how: WorkerExit, remark: str) -> WorkerCrashedError:
    hint = ""
    if how.signal == signal.SIGKILL:
        hint = "SIGKILL often means out of memory: look at the kernel's log, or give the tasks less to do at once"
    elif how.signal in (signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS):
        hint = "a compiled extension crashed; python -X faulthandler shows where"
    return WorkerCrashedError(
        f"the worker {how.words} while it ran task {number} ({remark})", exit_code=how.code, signal=how.signal, hint=hint
    )


def crashed_at_once(how: WorkerExit) -> WorkerStartError:
    return WorkerStartError(f"the worker {how.words} before it began a call", hint="see what your modules start when they are imported")


def state_lost(how: WorkerExit) -> StateLostError:
    return StateLostError(
        f"the worker of this stateful service {how.words}; its state is lost",
        hint="make the service anew with rr.service(...), with checkpoint=1 to have it saved after every call",
    )


def failure_of_start(problem: BaseException | bytes) -> str:
    """Why a worker did not get ready, in a few words; of a worker's report the type and the message."""
    if not isinstance(problem, bytes):
        return f"{type(problem).__name__}: {problem}"
    try:
        head = json.loads(problem[4 : 4 + int.from_bytes(problem[:4], "little")].decode("utf-8", "surrogatepass"))
        return f"{head['type']}: {head['message']}"
    except (ValueError, KeyError, TypeError, RecursionError):  # a task has written to the worker's sockets
        return "the worker's report of the error is damaged"
