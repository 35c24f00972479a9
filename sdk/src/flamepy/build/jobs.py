"""Jobs as a serverless platform keeps them: an identifier, a status, an output, and not for ever."""

from __future__ import annotations

import threading
import time
import traceback
import uuid
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any

KEPT_SECONDS = 1800.0
MOST_KEPT = 1000


class Stream:
    """Values of a job that come one by one; each is handed out once, and all of them are its output in the end.

    Attributes:
        output: of the list of them, or of the first that tells a failure.
    """

    def __init__(self, source: Any) -> None:
        self.source = source
        self.output: Future[Any] = Future()
        self._arrived = threading.Condition()
        self._values: list[Any] = []
        self._taken = 0
        threading.Thread(target=self._follow, name="flame-stream", daemon=True).start()

    def take(self, seconds: float) -> list[Any]:
        """Those that nobody took yet, waiting for one if there are none and there may be more."""
        with self._arrived:
            self._arrived.wait_for(lambda: len(self._values) > self._taken or self.output.done(), seconds)
            fresh = self._values[self._taken :]
            self._taken = len(self._values)
        return fresh

    def _follow(self) -> None:
        try:
            for value in self._items():
                if isinstance(value, dict) and value.get("error"):
                    self._end(value)
                    return
                with self._arrived:
                    self._values.append(value)
                    self._arrived.notify_all()
            self._end(list(self._values))
        except CancelledError:
            self.output.cancel()
            self.output.set_running_or_notify_cancel()  # nobody else would wake those who wait for it
        except BaseException as error:
            self.output.set_exception(error)
        finally:
            with self._arrived:
                self._arrived.notify_all()

    def _items(self) -> Iterator[Any]:
        try:
            yield from self.source
        except TypeError:
            # A generator that yields nothing leaves no trace of being one: it has ended, and its value is None.
            if not self.source.done() or self.source.exception() is not None or self.source.get() is not None:
                raise

    def _end(self, output: Any) -> None:
        if not self.output.done():
            self.output.set_result(output)


@dataclass(eq=False)
class Job:
    """One job and its fate.

    Attributes:
        output: of what its resource's handler answers. stream: of a job that sends its values as they come.
    """

    id: str
    resource: str
    output: Future[Any]
    created: float = field(default_factory=time.monotonic)
    stream: Stream | None = None

    def cancel(self) -> None:
        """Take it back; a worker that does not stop by itself is killed."""
        given: Any = self.output if self.stream is None else self.stream.source
        given.cancel(force=True)

    def output_ended(self, seconds: float) -> bool:
        """Wait for its end, at most so long."""
        return bool(wait([self.output], seconds).done)

    def answer(self) -> dict[str, Any]:
        """What a client is told about it now."""
        if not self.output.done():
            at_work = self.output if self.stream is None else self.stream.source
            return {"id": self.id, "status": "IN_PROGRESS" if at_work.running() else "IN_QUEUE"}
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
