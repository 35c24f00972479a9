"""Jobs that can be stopped while they run.

A serverless worker takes a job back by cancelling the task in which it awaits the handler. A function that is not ``async`` would never
notice: it would go on, and hold the worker. So every job runs on a thread of its own here, and when it is taken back, its coroutine is
cancelled, or `Stopped` is raised where the function is at work. What does not end then cannot be ended by anybody inside this process, so
the process itself ends, and the platform starts another.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import os
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any

__all__ = ["JobThreads", "Stopped", "job_at_work"]

STOP_SECONDS = 5.0
"""How long a job may take to end once it is taken back; ``FLAME_STOP_SECONDS`` says otherwise."""
LAST_WORDS_SECONDS = 2.0
"""How long the worker's other jobs have for sending their results, when one that cannot be stopped ends the process."""

logger = logging.getLogger("flame_host.handler")
_here = threading.local()


class Stopped(BaseException):
    """The job was taken back; raised where its function is at work. No `Exception`: functions that catch those must end, too."""


def job_at_work() -> JobCall | None:
    """The job that runs on this thread, if it can be stopped."""
    found: JobCall | None = getattr(_here, "job", None)
    return found


class JobCall:
    """One call of a job, on one of the threads.

    Attributes:
        ended: has its outcome. stopped: it was taken back.
    """

    def __init__(self, call: Callable[[], Any]) -> None:
        self.ended: Future[Any] = Future()
        self.stopped = False
        self._call = call
        self._lock = threading.Lock()
        self._thread: int | None = None
        self._task: asyncio.Task[Any] | None = None

    def run(self) -> None:
        """Make the call, on the thread that is meant for it. `Stopped` may be raised until it is over, and a little later."""
        if not self.ended.set_running_or_notify_cancel():
            return
        with self._lock:
            self._thread = threading.get_ident()
        _here.job = self
        try:
            value, error = self._call(), None
        except BaseException as raised:
            value, error = None, raised
        finally:
            _here.job = None
            with self._lock:
                self._thread = None
        if error is not None:
            self.ended.set_exception(error)
        else:
            self.ended.set_result(value)

    @contextlib.contextmanager
    def awaiting(self) -> Iterator[None]:
        """Of the worker's loop: the job's thread waits for the current task, so that this is what to cancel."""
        task = asyncio.current_task()
        with self._lock:
            self._task = task
            if task is not None and self.stopped:
                task.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._task = None

    def stop(self) -> None:
        """Tell it to end; what waits for its turn never begins."""
        if self.ended.cancel():
            return
        with self._lock:
            self.stopped = True
            if self._task is not None:
                self._task.get_loop().call_soon_threadsafe(self._task.cancel)
            elif self._thread is not None:
                _raise_in(self._thread)


def _raise_in(thread: int) -> None:
    import ctypes  # not every worker ever takes a job back

    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(Stopped))


class JobThreads:
    """Threads on which jobs run; where one job runs at a time, it is always the same thread.

    Args:
        most: jobs at a time.
    """

    def __init__(self, most: int = 1) -> None:
        self._most = most
        self._threads = 0
        self._idle = 0
        self._waiting: deque[JobCall] = deque()
        self._at_work: set[JobCall] = set()
        self._change = threading.Condition()

    async def run(self, call: Callable[[], Any]) -> Any:
        """Make the call on one of the threads; it is stopped when the task that awaits this is cancelled."""
        context = contextvars.copy_context()
        job = JobCall(lambda: context.run(call))
        self._begin(job)
        try:
            return await asyncio.wrap_future(job.ended)
        except asyncio.CancelledError:
            stopping = asyncio.ensure_future(self._stop(job))
            while not stopping.done():
                with contextlib.suppress(asyncio.CancelledError):  # said again: it is being done
                    await asyncio.wait({stopping})
            raise

    async def _stop(self, job: JobCall) -> None:
        job.stop()
        seconds = float(os.environ.get("FLAME_STOP_SECONDS") or STOP_SECONDS)
        deadline = time.monotonic() + seconds
        while not job.ended.done():
            if time.monotonic() > deadline:
                self._end_process(job, seconds)
                return
            await asyncio.sleep(0.02)

    def _begin(self, job: JobCall) -> None:
        with self._change:
            self._waiting.append(job)
            if self._idle < len(self._waiting):
                self._add_thread()
            self._change.notify()

    def _add_thread(self) -> None:
        if self._threads < self._most:
            self._threads += 1
            threading.Thread(target=self._work, name=f"flame-job-{self._threads}", daemon=True).start()

    def _work(self) -> None:
        try:
            while self._do_next():
                pass
        finally:
            with self._change:
                self._threads -= 1
                if self._waiting:
                    self._add_thread()

    def _do_next(self) -> bool:
        """Do a job; False after one that was stopped: what was raised here may be on its way still, and must not meet the next."""
        with self._change:
            self._idle += 1
            self._change.wait_for(lambda: self._waiting)
            self._idle -= 1
            job = self._waiting.popleft()
            self._at_work.add(job)
        try:
            job.run()
        except Stopped:  # it came when the call was over
            if not job.ended.done():
                job.ended.set_exception(Stopped())
        finally:
            with self._change:
                self._at_work.discard(job)
        return not job.stopped

    def _end_process(self, job: JobCall, seconds: float) -> None:
        """End this worker: as the platform would, so that it takes no more jobs, and for good when the others are done."""
        logger.error("a job that was taken back has not stopped within %g s: this worker ends, for another to take its place", seconds)
        threading.Thread(target=self._exit_when_others_ended, args=(job,), name="flame-exit", daemon=True).start()
        signal.raise_signal(signal.SIGTERM)

    def _exit_when_others_ended(self, job: JobCall) -> None:
        with self._change:
            others = self._at_work - {job}
        wait([other.ended for other in others])
        time.sleep(LAST_WORDS_SECONDS)
        os._exit(1)
