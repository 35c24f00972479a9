"""`ObjectFuture` alone, without an engine."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import pickle
import sys
import threading
import time
import traceback
import weakref
from concurrent.futures import CancelledError

import pytest
from flamepy import ObjectFuture


def test_waiting_too_long_is_a_timeout_under_both_names() -> None:
    future: ObjectFuture[int] = ObjectFuture()
    with pytest.raises(TimeoutError, match=r"not done within 0\.01 s"):
        future.get(timeout=0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0)
    assert future.wait(timeout=0) is False


def test_a_failed_future_raises_its_error_every_time_and_the_traceback_does_not_grow() -> None:
    future: ObjectFuture[int] = ObjectFuture()
    future.fail(KeyError("k"))
    depths = []
    for _ in range(3):
        with pytest.raises(KeyError) as caught:
            future.get()
        depths.append(len(caught.traceback))
    assert depths == [depths[0]] * 3
    if sys.version_info >= (3, 11):  # before, the frame that raises cannot be taken out of the traceback
        assert all(entry.path.name != "_futures.py" for entry in caught.traceback)


def test_a_cancelled_future_is_dropped_by_the_engine_and_raises() -> None:
    future: ObjectFuture[int] = ObjectFuture()
    assert future.cancel()
    assert future.begin() is False
    future.succeed(b"too late", ())
    with pytest.raises(CancelledError):
        future.get()
    assert future.cancelled()
    assert concurrent.futures.wait([future], timeout=1).done == {future}


def test_the_first_outcome_stays() -> None:
    future: ObjectFuture[int] = ObjectFuture()
    future.set_result(1)
    future.fail(ValueError())
    assert future.get() == 1
    with pytest.raises(concurrent.futures.InvalidStateError):
        future.set_result(2)


def test_a_future_cannot_be_pickled_and_says_what_to_do() -> None:
    with pytest.raises(TypeError, match="only as an argument"):
        pickle.dumps(ObjectFuture())


def test_a_callback_that_raises_stops_neither_the_others_nor_the_engine(caplog: pytest.LogCaptureFixture) -> None:
    future: ObjectFuture[int] = ObjectFuture()
    seen: list[int] = []
    future.add_done_callback(lambda _: 1 / 0)
    future.add_done_callback(lambda done: seen.append(done.get()))
    future.set_result(5)
    assert seen == [5]
    assert "exception calling callback" in caplog.text


def test_awaiting_gives_the_value_and_raises_the_error() -> None:
    async def main() -> None:
        future: ObjectFuture[int] = ObjectFuture()
        threading.Timer(0.01, future.set_result, [7]).start()
        assert await future == 7
        failed: ObjectFuture[int] = ObjectFuture()
        threading.Timer(0.01, failed.fail, [LookupError("gone")]).start()
        with pytest.raises(LookupError, match="gone"):
            await failed

    asyncio.run(main())


def test_cancelling_the_asyncio_task_cancels_the_future() -> None:
    async def main() -> ObjectFuture[int]:
        future: ObjectFuture[int] = ObjectFuture()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(future, 0.01)  # type: ignore[arg-type]
        return future

    assert asyncio.run(main()).cancelled()


def test_wait_and_as_completed_count_futures_settled_while_they_look() -> None:
    for _ in range(200):
        futures: list[ObjectFuture[int]] = [ObjectFuture() for _ in range(20)]
        settler = threading.Thread(target=lambda futures=futures: [future.set_result(1) for future in futures])
        settler.start()
        done, pending = concurrent.futures.wait(futures, timeout=10)
        assert len(done) == 20
        assert not pending
        assert all(future.done() for future in futures)
        settler.join()
    futures = [ObjectFuture() for _ in range(50)]
    threading.Thread(target=lambda: [future.set_result(1) for future in futures]).start()
    assert len(list(concurrent.futures.as_completed(futures, timeout=10))) == 50


def test_wait_for_the_first_exception_returns_at_once() -> None:
    failed: ObjectFuture[int] = ObjectFuture()
    pending: ObjectFuture[int] = ObjectFuture()
    threading.Timer(0.02, failed.fail, [ValueError()]).start()
    done, rest = concurrent.futures.wait([failed, pending], timeout=10, return_when=concurrent.futures.FIRST_EXCEPTION)
    assert (done, rest) == ({failed}, {pending})


def test_many_threads_waiting_for_one_future_all_get_it() -> None:
    future: ObjectFuture[int] = ObjectFuture()
    got: list[int] = []
    threads = [threading.Thread(target=lambda: got.append(future.get(10))) for _ in range(20)]
    for thread in threads:
        thread.start()
    time.sleep(0.01)
    future.set_result(3)
    for thread in threads:
        thread.join()
    assert got == [3] * 20


def test_a_pending_future_is_small_and_makes_no_lock() -> None:
    future: ObjectFuture[int] = ObjectFuture()
    future.begin()
    future.succeed(b"x", ())
    assert sys.getsizeof(future) < 400
    assert future._lazy_condition is None


def test_repr_says_state_and_outcome() -> None:
    future: ObjectFuture[int] = ObjectFuture()
    assert "state=pending" in repr(future)
    future.set_result(1)
    assert "returned int" in repr(future)
    assert "&lt;ObjectFuture" in future._repr_html_()


def test_a_rebuilt_error_keeps_nothing_of_who_asked_for_it() -> None:
    """Its frames once led back to the asking one, and all that held waited for the collector of cycles."""
    from flamepy._calls.errors import rebuild

    from flame_host.worker.runtime.report import error_report

    class Held:
        pass

    def report() -> bytes:
        try:
            raise ValueError("told") from KeyError("cause")
        except ValueError as error:
            return error_report(error)

    def ask() -> tuple[BaseException, weakref.ref[Held]]:
        held = Held()
        return rebuild(report(), pickle.loads), weakref.ref(held)

    gc.collect()
    gc.disable()
    try:
        error, held = ask()
        assert held() is None
    finally:
        gc.enable()
    assert error.__traceback__ is not None
    assert [entry.name for entry in traceback.extract_tb(error.__traceback__)] == ["report"]
    assert error.__traceback__.tb_frame.f_back is None
