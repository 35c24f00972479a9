"""What is given away of the machine: never more than there is, in order, and back again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flame_host.api import ConfigError, Payload, Resources, SessionSpec
from flame_host.engine.shares import Share, Shares, check_resources, this_machine


@pytest.fixture
def shares() -> Shares:
    return Shares(Resources(cpu=2, memory=8 << 30, gpu=2), ("3", "7"))


def test_what_can_never_be_had_is_refused_with_what_there_is(shares: Shares) -> None:
    with pytest.raises(ConfigError, match=r"memory=16\.0G \(it has 8\.0G\), gpu=3 \(it has 2\)"):
        shares.check(Resources(cpu=1, memory=16 << 30, gpu=3))


def test_a_priority_among_nobody_is_refused(shares: Shares) -> None:
    with pytest.raises(ConfigError, match="does not say what it needs"):
        check_resources(SessionSpec("app", Payload("x/1", b""), priority=1), shares)


def test_halves_of_a_core_add_up(shares: Shares) -> None:
    taken = [shares.take(n, Resources(cpu=0.5), 0) for n in range(4)]
    assert all(taken)
    assert shares.take("late", Resources(cpu=0.5), 0) is None
    shares.give_back(taken[0])
    assert shares.take("late", Resources(cpu=0.5), 0)


def test_every_worker_has_gpus_of_its_own(shares: Shares) -> None:
    one, other = shares.take("a", Resources(cpu=0, gpu=1), 0), shares.take("b", Resources(cpu=0, gpu=1), 0)
    assert one is not None
    assert other is not None
    assert (one.gpus, other.gpus) == (("3",), ("7",))
    shares.give_back(one)
    again = shares.take("c", Resources(cpu=0, gpu=1), 0)
    assert again is not None
    assert again.gpus == ("3",)


def test_the_highest_priority_is_served_first_and_among_equals_who_came_first(shares: Shares) -> None:
    held = shares.take("holder", Resources(cpu=2), 0)
    assert held is not None
    for who, priority in (("first", 1), ("second", 1), ("urgent", 5)):
        assert shares.take(who, Resources(cpu=1), priority) is None
    shares.give_back(held)
    assert shares.take("second", Resources(cpu=1), 1) is None
    assert shares.take("urgent", Resources(cpu=1), 5)
    assert shares.take("first", Resources(cpu=1), 1)
    shares.leave("second")
    assert not shares.waiting


def test_one_that_needs_much_is_not_passed_over_by_many_that_need_little(shares: Shares) -> None:
    small = shares.take("small", Resources(cpu=1), 0)
    assert shares.take("large", Resources(cpu=2), 0) is None
    assert shares.take("another small", Resources(cpu=1), 0) is None
    assert small is not None
    shares.give_back(small)
    assert shares.take("large", Resources(cpu=2), 0)


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0.5, 1, 1.5, 2]), st.integers(0, 2), st.booleans()), max_size=60))
def test_never_more_than_there_is_is_given(steps: list[tuple[int, float, int, bool]]) -> None:
    shares = Shares(Resources(cpu=2, memory=0, gpu=2), ("a", "b"))
    given_away: list[Share] = []
    for who, cpu, gpu, gives in steps:
        if gives and given_away:
            shares.give_back(given_away.pop(0))
            continue
        share = shares.take(who, Resources(cpu=cpu, gpu=gpu), 0)
        if share is not None:
            given_away.append(share)
        assert sum(one.wanted.cpu for one in given_away) <= 2
        names = [name for one in given_away for name in one.gpus]
        assert len(names) == len(set(names)) == sum(one.wanted.gpu for one in given_away)


def test_the_gpus_are_those_this_program_may_see() -> None:
    total, gpus = this_machine({"CUDA_VISIBLE_DEVICES": "2, GPU-8d1"})
    assert (total.gpu, gpus) == (2, ("2", "GPU-8d1"))
    assert this_machine({"CUDA_VISIBLE_DEVICES": ""})[1] == ()
    assert total.memory > 1 << 20
