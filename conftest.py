"""What holds for every test of the workspace."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


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
