"""``flame init``: a project to begin with."""

from __future__ import annotations

from pathlib import Path

from flamepy.build.errors import BuildError

__all__ = ["begin"]

_APP = '''"""Endpoints of this project. Try them with  flame dev ; make what can be deployed with  flame build ."""

from flamepy.flash import Endpoint

api = Endpoint(name="api", cpu="cpu3c-1-2", workers=(0, 3))


@Endpoint(name="greeter", cpu="cpu3c-1-2", workers=(0, 2))
async def greet(name: str, punctuation: str = "!") -> str:
    """Say hello."""
    return f"hello {name}{punctuation}"


@Endpoint(name="counter", cpu="cpu3c-1-2", workers=(0, 1))
class Counter:
    """Made once in each worker, and kept."""

    def __init__(self) -> None:
        self.total = 0

    def add(self, number: int) -> int:
        """Count on."""
        self.total += number
        return self.total


@api.get("/greetings/{name}")
async def greeting(name: str) -> dict:
    """Ask the other endpoint."""
    return {"greeting": await greet(name)}
'''
_MAIN = '''"""Call the endpoints from a program:  flame run main.py ."""

import asyncio

from app import Counter, greet


async def main() -> None:
    print(await greet("world"))
    counter = Counter()
    await counter.add(2)
    print(await counter.add(3))


if __name__ == "__main__":
    asyncio.run(main())
'''
_FILES = {
    "app.py": _APP,
    "main.py": _MAIN,
    "requirements.txt": "",
    ".flameignore": "tests/\ndocs/\n*.md\n",
    ".gitignore": ".flash/\n.env\n",
}


def begin(directory: Path, *, force: bool = False) -> list[Path]:
    """Write its files; returns their paths.

    Raises:
        BuildError: one of them is there already; nothing is written then.
    """
    there = [name for name in _FILES if (directory / name).exists()]
    if there and not force:
        raise BuildError(f"{directory} has {', '.join(there)} already", hint="name another directory, or write over them with --force")
    directory.mkdir(parents=True, exist_ok=True)
    written = []
    for name, text in _FILES.items():
        path = directory / name
        path.write_text(text, encoding="utf-8")
        written.append(path)
    return written
