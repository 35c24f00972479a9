"""The service behind ``flmrun``: ``python -m flamepy.runpy`` serves any execution object."""

from __future__ import annotations

import inspect
import sys
from typing import Any

from flamepy.cache import put_object
from flamepy.core import RunnerContext, RunnerRequest
from flamepy.service import FlameService, SessionContext, TaskContext, TaskOutput

__all__ = ["FlameRunpyService", "main"]


class FlameRunpyService(FlameService):
    """Calls the execution object of the session's `RunnerContext` as each task's `RunnerRequest` says.

    Results are put into the cache, and the output of a task is the reference.
    """

    def __init__(self) -> None:
        self._target: Any = None
        self._entered = False

    def on_session_enter(self, context: SessionContext) -> None:
        common = context.common_data()
        if not isinstance(common, RunnerContext):
            raise ValueError(f"the session's common data must be a RunnerContext, not {type(common).__name__}")
        target = common.execution_object
        self._target = target() if inspect.isclass(target) else target
        self._entered = True

    def on_task_invoke(self, context: TaskContext) -> TaskOutput:
        if not self._entered:
            raise RuntimeError("no session has been entered")
        request = context.input
        if not isinstance(request, RunnerRequest):
            raise ValueError(f"the task's input must be a RunnerRequest, not {type(request).__name__}")
        if request.method is not None and not hasattr(self._target, request.method):
            raise ValueError(f"the execution object has no method {request.method!r}")
        if request.method is None and not callable(self._target):
            raise ValueError(f"the execution object, a {type(self._target).__name__}, cannot be called; name a method")
        args, kwargs = request.arguments()
        value = (self._target if request.method is None else getattr(self._target, request.method))(*args, **kwargs)
        return TaskOutput(data=put_object(context.session_id, value))

    def on_session_leave(self) -> None:
        self._target = None
        self._entered = False


def main() -> None:
    """The entrypoint a Flame cluster starts: the host itself, which provisions the application and runs it in workers."""
    from flame_host.__main__ import main as serve

    sys.exit(serve())


if __name__ == "__main__":
    main()
