"""A session through any order of calls, failures and ends keeps count and never loses a task."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from flame_host.api import ClosedError, SessionState
from flame_host.engine.inline import InlineConnection
from flame_host.testing.services import BareServices, Caller


class Sessions(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.services = BareServices()
        self.connection = InlineConnection("inline:", self.services)
        self.call = Caller(self.connection, self.services, lambda n: 10 // n)
        self.expected = {"succeeded": 0, "failed": 0, "cancelled": 0}
        self.open = True

    @precondition(lambda self: self.open)
    @rule(number=st.integers(-3, 3))
    def submit(self, number: int) -> None:
        task = self.call(number)
        assert task.done()
        if number:
            assert task.result(0) == 10 // number
        else:
            assert isinstance(task.exception(0), ZeroDivisionError)
        self.expected["succeeded" if number else "failed"] += 1

    @rule()
    def close(self) -> None:
        self.call.session.close()
        self.open = False

    @precondition(lambda self: not self.open)
    @rule()
    def submit_to_a_closed_one(self) -> None:
        with pytest.raises(ClosedError):
            self.call(1)

    @invariant()
    def counts_agree(self) -> None:
        info = self.call.session.info()
        assert {"succeeded": info.succeeded, "failed": info.failed, "cancelled": info.cancelled} == self.expected
        assert info.state == (SessionState.OPEN if self.open else SessionState.CLOSED)
        assert (info.completion_time is None) == self.open

    def teardown(self) -> None:
        self.connection.close()
        self.services.close()


Sessions.TestCase.settings = settings(max_examples=30, stateful_step_count=15, deadline=None)
TestASessionInAnyOrderOfEvents = Sessions.TestCase
