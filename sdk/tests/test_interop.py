"""joblib's and dask's own examples, on the workers of a Runner."""

from __future__ import annotations

import asyncio
import math
import operator
import sys
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner

pytestmark = pytest.mark.slow


def fails(n: int) -> float:
    return 1 / (n - 3)


def test_joblibs_first_examples(project: Path) -> None:
    joblib = pytest.importorskip("joblib")
    from flamepy.joblib import register

    register()
    with Runner("interop", package=False, dependencies=["joblib"]) as rr, joblib.parallel_config("flame", runner=rr):
        assert joblib.Parallel(n_jobs=2)(joblib.delayed(math.sqrt)(i**2) for i in range(10)) == [float(i) for i in range(10)]
        results = joblib.Parallel(n_jobs=2, return_as="generator")(joblib.delayed(math.modf)(i / 2) for i in range(4))
        assert list(results) == [(0.0, 0.0), (0.5, 0.0), (0.0, 1.0), (0.5, 1.0)]
        with pytest.raises(ZeroDivisionError):
            joblib.Parallel(n_jobs=2)(joblib.delayed(fails)(n) for n in range(8))
        assert joblib.Parallel(n_jobs=-1)(joblib.delayed(pow)(2, n) for n in range(4)) == [1, 2, 4, 8]  # and goes on


def test_joblib_without_a_runner_says_what_it_needs() -> None:
    joblib = pytest.importorskip("joblib")
    from flamepy.joblib import register

    register()
    with pytest.raises(ValueError, match="runner=rr"), joblib.parallel_config("flame"):
        pass


def test_dasks_first_examples(project: Path) -> None:
    dask: Any = pytest.importorskip("dask")
    with Runner("interop", package=False, dependencies=["dask"]) as rr, dask.config.set(scheduler=rr.executor()):
        layers = [dask.delayed(operator.add)(n, 1) for n in range(8)]
        assert dask.delayed(sum)(layers).compute() == sum(range(1, 9))
        assert dask.compute(*layers) == tuple(range(1, 9))
        with pytest.raises(ZeroDivisionError):
            dask.delayed(operator.truediv)(1, 0).compute()


async def test_they_work_where_a_loop_runs_as_in_a_notebook(project: Path) -> None:
    """They block the loop until they are called back, so a loop must not do that."""
    joblib, dask = pytest.importorskip("joblib"), pytest.importorskip("dask")
    from flamepy.joblib import register

    register()
    with Runner("interop", package=False, dependencies=["joblib", "dask"]) as rr:
        with joblib.parallel_config("flame", runner=rr):
            assert joblib.Parallel(n_jobs=2)(joblib.delayed(abs)(-n) for n in range(4)) == [0, 1, 2, 3]
        with dask.config.set(scheduler=rr.executor()):
            assert dask.delayed(sum)([dask.delayed(operator.mul)(n, n) for n in range(4)]).compute() == 14
        if sys.version_info >= (3, 11):  # before, `asyncio.wait` makes tasks of what it is given
            done, _ = await asyncio.wait([rr.submit(abs, -n) for n in range(4)], timeout=30)  # type: ignore[type-var]
            assert {future.result() for future in done} == {0, 1, 2, 3}
