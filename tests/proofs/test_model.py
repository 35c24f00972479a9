"""The models of the task path: with the rules as they are nothing is found, and each fault that is put back is."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NamedTuple

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from model.cases import FAULTY, SOUND, Case, switches
from model.checker import explore, hunt


def _named(case: Case) -> str:
    return case.name


@pytest.mark.parametrize("case", [case for case in SOUND if case.quick], ids=_named)
def test_no_interleaving_leads_to_a_state_without_an_end(case: Case) -> None:
    report = case.run()
    assert not report.verdict, "\n".join([report.verdict, *report.trace])
    assert report.states > 50


@pytest.mark.parametrize("case", [case for case in FAULTY if case.quick], ids=_named)
def test_a_fault_that_is_put_back_is_found_with_the_way_to_it(case: Case) -> None:
    report = case.run()
    assert report.verdict
    assert report.trace


def test_every_switch_is_put_back_somewhere() -> None:
    assert {case.fault for case in FAULTY} == set(switches())


class _Toy(NamedTuple):
    """A model given as a table: from each state to those after it."""

    table: dict[int, tuple[int, ...]]
    ends: frozenset[int] = frozenset()
    bad: int = -1

    def first(self) -> int:
        return 0

    def steps(self, state: int) -> Any:
        return [(("toy", f"to {after}"), after) for after in self.table[state]]

    def ended(self, state: int) -> bool:
        return state in self.ends

    def broken(self, state: int) -> str:
        return "bad" if state == self.bad else ""


def test_the_checker_tells_a_deadlock_from_a_loop_without_an_end_and_a_broken_invariant() -> None:
    assert explore(_Toy({0: (1,), 1: (1,)})).verdict == "stuck"
    assert explore(_Toy({0: (1, 3), 1: (2,), 2: (1,), 3: ()}, frozenset({3})))[::4] == ("no way out", ("toy: to 1",))
    assert explore(_Toy({0: (1,), 1: ()}, frozenset({1}), bad=1)).verdict == "broken: bad"
    assert explore(_Toy({0: (1,), 1: (0, 2), 2: ()}, frozenset({2}))).verdict == ""
    assert hunt(_Toy({0: (1,), 1: (2,), 2: (1,)}), seed=1, walks=2).verdict == "no way out"
