"""When calls are submitted, and in which order: on an engine that runs them when the test says so."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import CancelledError

import pytest
from flamepy import ConfigError, ObjectFuture, Runner
from flamepy._calls.session import SessionHandle
from flamepy._calls.submission import CallSite

from flame_host import Host
from flame_host.api import Payload, SessionSpec
from flame_host.testing.engines import FakeConnection, FakeSession


class Bench:
    """Makes call sites on a connection that holds its calls."""

    def __init__(self) -> None:
        host = Host()
        self.serializer = host.catalog.serializer("cloudpickle")
        self.connection = FakeConnection("fake:", host.capabilities, host.catalog.serializer, hold=True)

    def site(self, target: object, *, ordered: bool = False) -> tuple[CallSite, FakeSession]:
        payload = Payload("cloudpickle/1", self.serializer.dumps(target))
        session = self.connection.open_session(SessionSpec("flmrun", payload))
        assert isinstance(session, FakeSession)
        handle = SessionHandle(self.connection, session, self.serializer, application="flmrun", label="test")
        return CallSite(handle, ordered=ordered), session


class Journal(list):  # type: ignore[type-arg]
    def add(self, item: object) -> int:
        self.append(item)
        return len(self)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.connection.close()


def test_a_call_whose_argument_failed_or_was_cancelled_is_never_submitted(bench: Bench) -> None:
    site, session = bench.site(len)
    bad: ObjectFuture[int] = ObjectFuture()
    cancelled: ObjectFuture[int] = ObjectFuture()
    after_bad, after_cancelled = site.call("", (bad,), {}), site.call("", ([cancelled],), {})
    error = LookupError("gone")
    bad.fail(error)
    cancelled.cancel()
    assert after_bad.exception(1) is error
    with pytest.raises(CancelledError):
        after_cancelled.get(1)
    assert session.submitted == []


def test_closing_while_calls_wait_for_arguments_fails_them_when_their_turn_comes(bench: Bench) -> None:
    site, session = bench.site(len)
    first = site.call("", ([1],), {})
    second = site.call("", (first,), {})
    session.close(wait=False)
    for future in (first, second):
        with pytest.raises(Exception, match="closed"):
            future.get(1)


def test_a_call_cancelled_while_it_waits_is_skipped_and_the_line_goes_on(bench: Bench) -> None:
    site, session = bench.site(Journal(), ordered=True)
    source, _ = bench.site(len)
    argument = source.call("", ([1, 2],), {})
    held, later = site.call("add", (argument,), {}), site.call("add", ("later",), {})
    assert site.held == 2
    assert held.cancel()
    bench.connection.sessions["flmrun-2"].run()
    session.run()
    assert later.get(1) == 1
    assert site.held == 0


def test_a_stateless_service_does_not_wait_for_earlier_calls(bench: Bench) -> None:
    site, session = bench.site(len)
    other, _ = bench.site(len)
    waiting = site.call("", (other.call("", ([],), {}),), {})
    site.call("", ([1],), {})
    assert len(session.submitted) == 1
    assert not waiting.done()


def test_calls_of_a_stateful_service_keep_their_order_whatever_their_arguments_do(bench: Bench) -> None:
    site, session = bench.site(Journal(), ordered=True)
    source, supply = bench.site(abs)
    arguments = [source.call("", (number,), {}) for number in range(4)]
    for argument in arguments:
        site.call("add", (argument,), {})
        site.call("add", ("plain",), {})
    supply.queue.reverse()  # the last argument is there first
    while supply.run(1):
        session.run()
    session.run()
    assert site.call("__len__", (), {}) is not None
    journal = session._object()
    assert [item for item in journal if item != "plain"] == [0, 1, 2, 3]
    assert journal[1::2] == ["plain"] * 4


def test_many_arguments_finishing_in_many_threads_submit_once(bench: Bench) -> None:
    site, session = bench.site(len)
    arguments: list[ObjectFuture[int]] = []
    source, supply = bench.site(abs)
    arguments = [source.call("", (number,), {}) for number in range(40)]
    total = site.call("", (arguments,), {})
    tasks, supply.queue = supply.queue, []
    data = bench.serializer.dumps(1)
    threads = [threading.Thread(target=entry[0].succeed, args=(data, ())) for entry in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert session.submitted == [""]
    session.run()
    assert total.get(1) == 40


def test_calls_of_the_same_content_are_made_once_when_asked_for(local: Runner) -> None:
    import time

    service = local.service(time.monotonic_ns, memo=True)
    assert service().get() == service().get()

    def stamp(a: object, b: int = 0) -> float:
        return time.monotonic()

    stamped = local.service(stamp, memo=True)
    shared = local.put_object(1)
    assert stamped([1, 2], b=1) is stamped([1, 2], b=1)
    assert stamped(shared) is stamped(shared)
    assert stamped([1, 2]) is not stamped([1, 3])
    with pytest.raises(ConfigError, match="for functions"):
        local.service(stamp, memo=True, stateful=True)


def test_a_call_that_failed_is_made_again(local: Runner) -> None:
    def broken() -> None:
        raise ValueError

    service = local.service(broken, memo=True)
    first = service()
    assert first.exception() is not None
    assert service() is not first
