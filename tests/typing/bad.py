"""Each marked line must be an error for ``mypy --strict`` and pyright."""

from __future__ import annotations

from flamepy import Runner


def add(a: int, b: int = 0) -> int:
    return a + b


with Runner("typed") as rr:
    service = rr.service(add)
    service("text")  # error
    service()  # error
    service(1, c=2)  # error
    rr.submit(add, "text")  # error
    text: str = service(1).get()  # error
    Runner(3)  # error
    Runner("x", engin="local")  # error
