"""What holds for every test of the workspace."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_host.testing.processes import descendants, eventually


@pytest.fixture(autouse=True)
def no_session_stalls() -> Iterator[None]:
    """The engine recovers from a session that makes no progress, and says so; that it came to that is a failure."""
    told: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: told.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("flame_host.engine.stall")
    logger.addHandler(handler)
    yield
    logger.removeHandler(handler)
    assert not told, told[0]


@pytest.fixture(autouse=True)
def no_process_is_left() -> Iterator[None]:
    """Whatever a test starts has ended with it; named here, where it was started, and not by whoever looks next."""
    before = set(descendants())
    yield
    if not eventually(lambda: set(descendants()) <= before):
        left = {pid: _command_line(pid) for pid in descendants() if pid not in before}
        assert not left


def _command_line(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") or "ended, not waited for"
    except OSError:
        return "gone meanwhile"
