"""Calls over many inputs, with a bound on how many are under way."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import TimeoutError as _TimeoutError
from typing import TYPE_CHECKING, Any

from flamepy._calls.callbacks import at_once, callback_thread

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture
    from flamepy._calls.progress import Progress

_IN_FLIGHT = 4096
"""Calls made and not yet consumed, unless told otherwise: enough to keep many workers busy, and some megabytes at most."""


def map_calls(
    call: Callable[..., ObjectFuture[Any]],
    arguments: Iterable[tuple[Any, ...]],
    total: int | None,
    *,
    ordered: bool = True,
    in_flight: int | None = None,
    return_exceptions: bool = False,
    progress: bool | str | None = None,
    timeout: float | None = None,
) -> Iterator[Any]:
    """Call for each tuple of arguments and yield the results.

    Calls are made as results are taken: an input iterator is read only ``in_flight`` ahead. Leaving the iteration early cancels
    what has not been consumed.

    Args:
        total: number of inputs, when it is known. progress: a label for the bar.
    """
    limit = _IN_FLIGHT if in_flight is None else in_flight
    if limit < 1:
        raise ValueError(f"in_flight is {in_flight}; at least one call must be under way")
    bar = None if progress is False else _progress(progress, total)
    walk = _ordered if ordered else _as_completed
    # The first calls are made now, not when the first result is asked for: `svc.map(...)` starts the work, as in an executor.
    return _Results(walk, call, iter(arguments), limit, return_exceptions, bar, timeout)


class _Results:
    def __init__(
        self,
        walk: Callable[..., Iterator[ObjectFuture[Any]]],
        call: Callable[..., ObjectFuture[Any]],
        arguments: Iterator[tuple[Any, ...]],
        limit: int,
        return_exceptions: bool,
        bar: Progress | None,
        timeout: float | None,
    ) -> None:
        self._pending: deque[ObjectFuture[Any]] = deque()
        self._until = None if timeout is None else time.monotonic() + timeout
        self._return_exceptions = return_exceptions
        self._bar = bar
        self._futures = walk(self._pending, call, arguments, limit, self._until)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            future = next(self._futures)
            error = future.exception(_left(self._until)) if self._return_exceptions and not future.cancelled() else None
            value = error if error is not None else future.get(_left(self._until))
        except BaseException:
            self.close()
            raise
        if self._bar is not None:
            self._bar.advance()
        return value

    def close(self) -> None:
        """Cancel what was not consumed."""
        bar, self._bar = self._bar, None
        _close(self._pending, bar)

    def __del__(self) -> None:
        # Not here: a finalizer may run in the middle of anything, of what cancels included.
        if self._pending or self._bar is not None:
            callback_thread.call(_close, self._pending, self._bar)


def _close(pending: deque[ObjectFuture[Any]], bar: Progress | None) -> None:
    if bar is not None:
        bar.close()
    while pending:
        pending.pop().cancel()


def _ordered(
    pending: deque[ObjectFuture[Any]],
    call: Callable[..., ObjectFuture[Any]],
    arguments: Iterator[tuple[Any, ...]],
    limit: int,
    until: float | None,
) -> Iterator[ObjectFuture[Any]]:
    pending.extend(call(*given) for given in itertools.islice(arguments, limit))

    def walk() -> Iterator[ObjectFuture[Any]]:
        # Refilled by lots: workers find a full queue while results are handled.
        lot = max(1, limit // 4)
        while pending:
            if len(pending) <= limit - lot:
                pending.extend(call(*given) for given in itertools.islice(arguments, lot))
            yield pending.popleft()
            if not pending:
                pending.extend(call(*given) for given in itertools.islice(arguments, limit))

    return walk()


def _as_completed(
    pending: deque[ObjectFuture[Any]],
    call: Callable[..., ObjectFuture[Any]],
    arguments: Iterator[tuple[Any, ...]],
    limit: int,
    until: float | None,
) -> Iterator[ObjectFuture[Any]]:
    done: deque[ObjectFuture[Any]] = deque()
    arrival = threading.Event()
    under_way: set[ObjectFuture[Any]] = set()

    def arrived(future: ObjectFuture[Any]) -> None:
        done.append(future)
        arrival.set()

    def start(count: int) -> None:
        for given in itertools.islice(arguments, count):
            future = call(*given)
            under_way.add(future)
            pending.append(future)  # so that they are cancelled when the iteration is left
            future.when_done(at_once(arrived))

    start(limit)

    def walk() -> Iterator[ObjectFuture[Any]]:
        lot = max(1, limit // 4)
        try:
            while under_way:
                if not done:
                    arrival.clear()
                    # Looked at again: it may have come between the two lines above.
                    if not done and not arrival.wait(_left(until)):
                        raise _TimeoutError(f"{len(under_way)} calls were not done in time")
                    continue
                future = done.popleft()
                under_way.discard(future)
                yield future
                if len(under_way) <= limit - lot:
                    start(lot)
                    while len(pending) > 2 * limit:
                        pending.popleft()
        finally:
            pending.clear()
            pending.extend(under_way)

    return walk()


def _left(until: float | None) -> float | None:
    return None if until is None else max(0.0, until - time.monotonic())


def _progress(progress: bool | str | None, total: int | None) -> Progress | None:
    from flamepy._calls.progress import progress_for

    return progress_for(progress, total)


def length_of(iterables: tuple[Iterable[Any], ...]) -> int | None:
    """How many calls there will be, where that is known beforehand."""
    try:
        return min(len(iterable) for iterable in iterables)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
