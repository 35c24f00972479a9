"""Must check with ``mypy --strict`` and pyright."""

from __future__ import annotations

import asyncio

from flamepy import ObjectFuture, Runner
from typing_extensions import assert_type


def add(a: int, b: int = 0) -> int:
    return a + b


async def later(x: str) -> bytes:
    return x.encode()


class Counter:
    def add(self, a: int) -> int:
        return a


with Runner("typed") as rr:
    service = rr.service(add)
    assert_type(service(1, b=3), ObjectFuture[int])
    assert_type(service(1).get(), int)
    assert_type(rr.submit(add, 1), ObjectFuture[int])
    assert_type(rr.get([service(1), service(2)]), list[int])
    assert_type(service.local(1), int)
    assert_type(rr.service(later)("x"), ObjectFuture[bytes])
    for value in service.map([1, 2]):
        assert_type(value, int)
    assert_type(service(service(1)), ObjectFuture[int])
    assert_type(service(service(1), 2), ObjectFuture[int])
    assert_type(service(1, service(2)), ObjectFuture[int])
    assert_type(service(rr.put_object(1)), ObjectFuture[int])
    assert_type(service.options(timeout=1)(service(1)), ObjectFuture[int])
    assert_type(rr.executor().submit(add, 1).result(), int)
    assert_type(rr.submit(int, "3"), ObjectFuture[int])
    bound = rr.service(Counter().add)
    assert_type(bound(bound(1)), ObjectFuture[int])
    counter = rr.service(Counter)
    counter.add(counter.add(1))
    counter.methods.add(1).get()
    counter.add(1).get()
    rr.service(Counter()).add(2)

    async def main() -> int:
        return await service(1, 2)

    asyncio.run(main())
