"""Jobs as a serverless platform keeps them: an identifier, a status, an output, and not for ever."""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections import OrderedDict
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

KEPT_SECONDS = 1800.0
MOST_KEPT = 1000


@dataclass(eq=False)
class Job:
    """One job and its fate.

    Attributes:
        output: of what its resource's handler answers.
    """

    id: str
    resource: str
    output: Future[Any]
    created: float = field(default_factory=time.monotonic)

    def answer(self) -> dict[str, Any]:
        """What a client is told about it now."""
        if not self.output.done():
            return {"id": self.id, "status": "IN_PROGRESS" if self.output.running() else "IN_QUEUE"}
        if self.output.cancelled():
            return {"id": self.id, "status": "CANCELLED"}
        error = self.output.exception()
        return {"id": self.id, **completed(_said_of(error) if error is not None else self.output.result())}


def new_id() -> str:
    return uuid.uuid4().hex


def completed(output: Any) -> dict[str, Any]:
    """Status and output of a job whose handler has answered.

    As on the platform, a non-empty ``error`` makes a job fail. Unlike there, the rest of such an answer is not thrown away: it
    holds the traceback.
    """
    if isinstance(output, dict) and output.get("error"):
        return {"status": "FAILED", "error": output["error"], "output": output}
    return {"status": "COMPLETED", "output": output}


def _said_of(error: BaseException) -> dict[str, Any]:
    """Of a job that never got an answer: its worker died, or could not start."""
    trace = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    return {"success": False, "error": str(error) or type(error).__name__, "traceback": trace}


class Jobs:
    """Those of one server. What is done is forgotten after half an hour, or when there are too many."""

    def __init__(self, *, kept_seconds: float = KEPT_SECONDS, most: int = MOST_KEPT) -> None:
        self._kept_seconds = kept_seconds
        self._most = most
        self._jobs: OrderedDict[str, Job] = OrderedDict()
        self._lock = threading.Lock()

    def add(self, job: Job) -> Job:
        with self._lock:
            self._jobs[job.id] = job
            self._forget()
        return job

    def drop(self, job: Job) -> None:
        with self._lock:
            self._jobs.pop(job.id, None)

    def get(self, id: str, resource: str | None) -> Job | None:
        """A job by its identifier; one of another resource is not found."""
        with self._lock:
            self._forget()
            job = self._jobs.get(id)
        return job if job is not None and resource in (None, job.resource) else None

    def counts(self) -> dict[str, int]:
        with self._lock:
            done = sum(job.output.done() for job in self._jobs.values())
            return {"inProgress": len(self._jobs) - done, "completed": done}

    def _forget(self) -> None:
        now = time.monotonic()
        done = [job for job in self._jobs.values() if job.output.done()]
        too_many = len(self._jobs) - self._most
        for index, job in enumerate(done):
            if index < too_many or now - job.created > self._kept_seconds:
                del self._jobs[job.id]
