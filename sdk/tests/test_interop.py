"""joblib's and dask's own examples, on the workers of a Runner."""

from __future__ import annotations

import math
import operator
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
