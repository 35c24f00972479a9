"""How many calls go together, and how many tasks are under way."""

from __future__ import annotations

from flame_engine_flame.pacing import Pace


def after(seconds: float, *, calls: int = 1, executors: int = 1, ordered: bool = False) -> Pace:
    pace = Pace(ordered=ordered)
    for number in range(executors):
        pace.came_back(calls, seconds * calls, str(number))
    return pace


def test_while_nothing_is_known_calls_go_singly_and_more_as_time_passes() -> None:
    pace = Pace(ordered=False)
    assert pace.calls(10_000) == 1
    assert [pace.tasks(100.0 + second, 10_000) for second in (0, 1, 2, 5)] == [2, 4, 8, 64]


def test_short_calls_are_gathered_until_they_are_worth_a_task() -> None:
    assert after(0.001).calls(10_000) == 100
    assert after(0.000_001).calls(100_000) == 4096
    assert after(0.001).calls(7) == 7
    assert after(0.001, executors=4).calls(8) == 2


def test_long_calls_go_singly_as_many_as_there_are() -> None:
    pace = after(1.0)
    assert pace.calls(10_000) == 1
    assert pace.tasks(0.0, 10_000) == 1000


def test_no_executor_is_asked_for_where_little_work_waits() -> None:
    assert after(0.001).tasks(0.0, 100) == 2
    assert after(0.001).tasks(0.0, 10_000) == 4


def test_an_ordered_session_has_one_task_under_way() -> None:
    pace = after(0.001, ordered=True)
    assert pace.tasks(0.0, 10_000) == 1
    assert pace.calls(10_000) == 100


def test_more_goes_into_each_task_where_the_cluster_takes_long() -> None:
    pace = Pace(ordered=False)
    for _ in range(20):
        pace.came_back(100, 0.1, "x", elapsed=0.9)
    assert 700 < pace.calls(10_000) <= 800
