"""Many calls, and what they print."""

from __future__ import annotations

import gc
import io
import itertools
import json
import logging
import sys
import time
import tracemalloc
from collections.abc import Iterator

import pytest
from flamepy import Runner
from flamepy._calls.logs import TaskLogs

from flame_host.api import LogRecord
from flame_host.testing.processes import eventually


def square(x: int) -> int:
    return x * x


def picky(x: int) -> int:
    if x == 3:
        raise ValueError("three")
    return x


def speak(text: str) -> int:
    print(text)
    print("to stderr", file=sys.stderr)
    return 1


def test_the_first_failure_is_raised_and_what_was_not_consumed_is_cancelled(runner: Runner) -> None:
    results = runner.service(picky).map(range(100), in_flight=10)
    with pytest.raises(ValueError, match="three"):
        list(results)


def test_exceptions_can_be_results(runner: Runner) -> None:
    got = list(runner.service(picky).map(range(5), return_exceptions=True))
    assert [type(value) for value in got] == [int, int, int, ValueError, int]


def test_an_impossible_bound_is_refused(runner: Runner) -> None:
    with pytest.raises(ValueError, match="in_flight"):
        runner.service(square).map([1], in_flight=0)


def test_a_map_that_takes_too_long_times_out(local: Runner) -> None:
    with pytest.raises(TimeoutError):
        list(local.service(time.sleep).map([5], timeout=0.2))


@pytest.mark.parametrize("ordered", [True, False])
@pytest.mark.parametrize("in_flight", [1, 3, 1000])
def test_map_gives_every_result_once(runner: Runner, ordered: bool, in_flight: int) -> None:
    got = list(runner.service(square).map(range(100), ordered=ordered, in_flight=in_flight))
    assert (got if ordered else sorted(got)) == [x * x for x in range(100)]


def test_map_of_several_inputs_starmap_and_of_methods(runner: Runner) -> None:
    service = runner.service(pow)
    assert list(service.map([1, 2], [3, 4])) == [1, 16]
    assert list(service.starmap([(2, 3), (3, 2)])) == [8, 9]
    assert list(service.map([])) == []
    assert list(service.map(iter([]), ordered=False)) == []


def test_an_endless_input_is_read_only_a_bound_ahead(local: Runner) -> None:
    seen: list[int] = []

    def inputs() -> Iterator[int]:
        for number in itertools.count():
            seen.append(number)
            yield number

    results = local.service(square).map(inputs(), in_flight=50)
    assert list(itertools.islice(results, 200)) == [x * x for x in range(200)]
    assert len(seen) <= 300


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_a_hundred_thousand_tasks_take_constant_memory(local: Runner) -> None:
    service = local.service(square)
    peaks = []
    for count in (10_000, 100_000):
        gc.collect()
        tracemalloc.start()
        assert sum(1 for _ in service.map(range(count), in_flight=512)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 4_000_000


def test_a_progress_bar_is_drawn_only_when_asked_or_on_a_terminal(
    runner: Runner, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("FLAME_PROGRESS")
    list(runner.service(square).map(range(10)))
    assert capsys.readouterr().err == ""
    list(runner.service(time.sleep).map([0.1] * 14, progress=True))
    assert "/14" in capsys.readouterr().err


def test_output_of_workers_is_shown_with_a_prefix_and_kept_for_each_task(capsys: pytest.CaptureFixture[str]) -> None:
    with Runner("talk", engine="local") as rr:
        future = rr.service(speak)("hello")
        future.get()
        assert eventually(lambda: "hello\n" in future.logs() and "to stderr" in future.logs())
    err = capsys.readouterr().err
    assert any(line.startswith("(speak ") and line.endswith(") hello") for line in err.splitlines())


def test_lines_of_json_stay_readable_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    with Runner("talk", engine="local") as rr:
        future = rr.service(speak)(json.dumps({"a": 1}))
        assert eventually(lambda: "}" in future.logs())
    assert '{"a": 1}' in capsys.readouterr().err.splitlines()


@pytest.mark.parametrize(("mode", "shown"), [("none", ""), ("errors", "to stderr")])
def test_output_can_be_silenced(mode: str, shown: str, capsys: pytest.CaptureFixture[str]) -> None:
    with Runner("talk", engine="local", logs=mode) as rr:
        future = rr.service(speak)("hello")
        assert eventually(lambda: "hello" in future.logs() and "to stderr" in future.logs())
    err = capsys.readouterr().err
    assert "hello" not in err
    assert shown in err


def test_a_logger_can_take_the_output() -> None:
    stream = io.StringIO()
    logger = logging.Logger("mine")
    logger.addHandler(logging.StreamHandler(stream))
    with Runner("talk", engine="local", logs=logger) as rr:
        rr.service(speak)("hello").get()
        assert eventually(lambda: "hello\n" in stream.getvalue())


def test_what_closed_services_printed_is_remembered_up_to_a_bound() -> None:
    logs = TaskLogs()
    for number in range(5):
        session = f"s{number}"
        logs.watch(session, "service", "none")
        for _ in range(6):
            logs(LogRecord(session, 1, 1, "stdout", "x" * 100_000))
        logs.forget(session)
        logs.forget(session)
    assert [len(logs.of(f"s{number}", -1)) for number in range(5)] == [0, 0, 0, 0, 600_000]
    for number in range(300):
        logs.watch(f"quiet{number}", "service", "none")
        logs.forget(f"quiet{number}")
    assert len(logs._sessions) <= 100
