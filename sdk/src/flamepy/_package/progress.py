"""A line on standard error about what takes longer than a second, and another when it is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

_PATIENCE = 1.0


@contextmanager
def told(what: str, *, quiet: bool = False) -> Iterator[None]:
    begun = time.monotonic()
    timer = threading.Timer(_PATIENCE, lambda: print(f"flame: {what} …", file=sys.stderr, flush=True))
    timer.daemon = True
    if not quiet:
        timer.start()
    try:
        yield
    finally:
        timer.cancel()
        spent = time.monotonic() - begun
        if not quiet and spent > _PATIENCE:
            print(f"flame: {what}: {spent:.1f} s", file=sys.stderr, flush=True)
