"""joblib on the workers of a Runner: scikit-learn's ``n_jobs``, and every other program that says ``Parallel``.

::

    import joblib
    from flamepy import Runner
    from flamepy.joblib import register

    register()
    with Runner("my-app") as rr, joblib.parallel_config("flame", runner=rr):
        results = joblib.Parallel()(joblib.delayed(f)(n) for n in range(1000))

The project's dependencies must have joblib, and what is called with it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import joblib  # type: ignore[import-untyped]
from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase, SequentialBackend  # type: ignore[import-untyped]

if TYPE_CHECKING:
    from flamepy import ObjectFuture, Runner
    from flamepy._runner.executor import RunnerExecutor

__all__ = ["FlameBackend", "register"]


class FlameBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """Args:
    runner: where the calls go; it is left open.
    """

    supports_retrieve_callback = True
    supports_inner_max_num_threads = False

    def __init__(self, runner: Runner | None = None, **options: Any) -> None:
        super().__init__(**options)
        if runner is None:
            raise ValueError('the joblib backend "flame" needs a Runner: parallel_config("flame", runner=rr)')
        self._runner = runner
        self._executor: RunnerExecutor | None = None

    def effective_n_jobs(self, n_jobs: int) -> int:
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        cores = len(os.sched_getaffinity(0))
        return cores if n_jobs is None or n_jobs < 0 else n_jobs

    def configure(self, n_jobs: int = 1, parallel: Any = None, **options: Any) -> int:
        self.parallel = parallel
        self._executor = self._runner.executor()
        return self.effective_n_jobs(n_jobs)

    def submit(self, func: Callable[[], Any], callback: Callable[[ObjectFuture[Any]], Any] | None = None) -> ObjectFuture[Any]:
        assert self._executor is not None, "joblib configures a backend before it uses it"
        for called, _, _ in getattr(func, "items", ()):  # a batch of calls, whose functions may stand where no worker could import them
            self._executor.carry(called)
        future: ObjectFuture[Any] = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # as joblib before 1.4 calls it

    def retrieve_result_callback(self, future: ObjectFuture[Any]) -> Any:
        return future.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = self._runner.executor() if ensure_ready else None

    def terminate(self) -> None:
        if self._executor is not None:
            self._executor.shutdown(wait=False)
            self._executor = None

    def get_nested_backend(self) -> tuple[Any, Any]:
        """A call within a worker goes no further: the workers are as many as the machine has cores."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def register() -> None:
    """Make ``"flame"`` a backend of joblib."""
    joblib.register_parallel_backend("flame", FlameBackend)
