"""CPython's own test cases for futures, run with `ObjectFuture` in their place."""

from __future__ import annotations

import concurrent.futures
import importlib
import io
import logging
import types
import unittest

import pytest
from flamepy import ObjectFuture


class _Named(ObjectFuture):  # type: ignore[type-arg]
    """The cases compare ``repr`` with the class's name."""


_Named.__name__ = "Future"


def _cases() -> types.ModuleType | None:
    for name in ("test.test_concurrent_futures.test_future", "test.test_concurrent_futures"):
        try:
            return importlib.import_module(name)
        except (ImportError, unittest.SkipTest):
            continue
    return None


def test_cpythons_own_future_cases_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    module = _cases()
    if module is None:
        pytest.skip("this Python was installed without its tests")
    # They read from sys.stderr what the logger says, which pytest's own handler keeps from getting there.
    monkeypatch.setattr(logging.getLogger("concurrent.futures"), "propagate", False)
    # The cases make futures by this name, in their module and in the one that holds their helpers.
    for name in (module.__name__, "test.test_concurrent_futures.util"):
        try:
            other = importlib.import_module(name)
        except ImportError:
            continue
        if hasattr(other, "Future"):
            monkeypatch.setattr(other, "Future", _Named)
        for constant in dir(other):
            value = getattr(other, constant)
            if isinstance(value, concurrent.futures.Future):
                monkeypatch.setattr(other, constant, _like(value))
    suite = unittest.defaultTestLoader.loadTestsFromTestCase(module.FutureTests)
    report = io.StringIO()
    result = unittest.TextTestRunner(stream=report, verbosity=1).run(suite)
    assert result.testsRun >= 20
    assert result.wasSuccessful(), report.getvalue()


def _like(other: concurrent.futures.Future[object]) -> ObjectFuture[object]:
    future: ObjectFuture[object] = _Named()
    future._state = other._state
    future._exception = other._exception
    future._result = other._result
    return future
