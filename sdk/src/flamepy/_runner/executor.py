"""A Runner where the standard library wants an executor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from flame_host.api import ClosedError

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture
    from flamepy._runner.runner import Runner

P = ParamSpec("P")
R = TypeVar("R")


class RunnerExecutor(Executor):
    """Works with ``loop.run_in_executor`` and whatever else takes an executor."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._open = True
        self._pending: set[ObjectFuture[Any]] = set()

    def submit(self, fn: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> ObjectFuture[R]:
        if not self._open:
            raise ClosedError("cannot submit to an executor that was shut down")
        future = self._runner.submit(fn, *args, **kwargs)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        self._open = False
        for future in list(self._pending):
            if cancel_futures:
                future.cancel()
        if wait:
            for future in list(self._pending):
                future.wait()
