"""What is asked of several futures together."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar, overload

from flamepy._refs import ObjectRef

if TYPE_CHECKING:
    from flamepy._calls.future import ObjectFuture

T = TypeVar("T")


class Results:
    """The part of a Runner that needs none: the futures know where they come from."""

    @overload
    def get(self, futures: ObjectFuture[T], timeout: float | None = None) -> T: ...

    @overload
    def get(self, futures: ObjectRef, timeout: float | None = None) -> Any: ...

    @overload
    def get(self, futures: Iterable[ObjectFuture[T] | ObjectRef], timeout: float | None = None) -> list[T]: ...

    def get(self, futures: Any, timeout: float | None = None) -> Any:
        """The value of a future or reference; of several, the values in order, and the first failure is raised.

        The timeout is for all together.
        """
        from flamepy._calls.gather import get_all, get_one

        several = isinstance(futures, Iterable) and not isinstance(futures, Future)  # which can be iterated, too
        return get_all(futures, timeout) if several else get_one(futures, timeout)

    def ref(self, futures: Iterable[ObjectFuture[Any]], timeout: float | None = None) -> list[ObjectRef]:
        """Where the values stand in the cache, in order."""
        from flamepy._calls.gather import ref_all

        return ref_all(futures, timeout)

    def wait(self, futures: Iterable[ObjectFuture[Any]], timeout: float | None = None) -> bool:
        """Wait until all are done, whatever their outcome, and say whether they are."""
        from flamepy._calls.gather import wait_all

        return wait_all(futures, timeout)

    def select(self, futures: Iterable[ObjectFuture[T]], timeout: float | None = None) -> Iterator[ObjectFuture[T]]:
        """The futures as they get done, the first done first."""
        from flamepy._calls.gather import select

        return select(futures, timeout)
