"""What every observer must do. Inherit, and say which::

class TestMyObserver(ObserverContract):
    @pytest.fixture
    def observer(self): return MyObserver()
"""

from __future__ import annotations

import threading
import time

import pytest

from flame_host._plugins.observers import ObserverThread
from flame_host.api import Event, Observer

__all__ = ["ObserverContract"]


class ObserverContract:
    """The contract of `flame_host.api.Observer`."""

    patience = 1.0
    """Seconds that 10,000 events may take: what is slower loses events under load."""

    @pytest.fixture
    def observer(self) -> Observer:
        """The observer under test."""
        raise NotImplementedError("override this fixture to return your observer")

    def test_an_event_of_a_kind_it_does_not_know_is_no_error(self, observer: Observer) -> None:
        observer.observe([Event("kind.of.tomorrow", time.time())])

    def test_an_event_without_session_and_detail_is_no_error(self, observer: Observer) -> None:
        observer.observe([Event("", 0.0), Event("task.failed", 0.0, detail="ünïcode\n\0")])

    def test_a_batch_of_nothing_is_no_error(self, observer: Observer) -> None:
        observer.observe([])

    def test_it_leaves_the_batch_as_it_was(self, observer: Observer) -> None:
        events = [Event("task.started", 1.0, "session", 1), Event("task.succeeded", 2.0, "session", 1)]
        given = list(events)
        observer.observe(given)
        assert given == events, "others are handed the same batch"

    def test_it_keeps_the_protocol(self, observer: Observer) -> None:
        assert isinstance(observer, Observer)
        assert isinstance(observer.name, str)
        assert observer.name

    def test_it_keeps_up(self, observer: Observer) -> None:
        events = [Event("task.succeeded", float(number), "session", number) for number in range(10_000)]
        begun = time.monotonic()
        observer.observe(events)
        assert time.monotonic() - begun < self.patience

    def test_it_may_be_called_from_any_thread(self, observer: Observer) -> None:
        failures: list[BaseException] = []

        def work() -> None:
            try:
                for number in range(50):
                    observer.observe([Event("task.started", 0.0, "session", number)])
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not failures

    def test_the_host_goes_on_asking_it(self, observer: Observer, caplog: pytest.LogCaptureFixture) -> None:
        thread = ObserverThread([observer])
        for number in range(3):
            thread.add(Event("task.started", 0.0, task=number))
            thread.flush()
        assert "not asked any more" not in caplog.text
