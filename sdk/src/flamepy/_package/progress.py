"""A line on standard error about what takes longer than a second, and another when it is done."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flame_host.api import Event

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


class Installations:
    """Told by the host's events: what is being installed, when that takes longer than a second."""

    def __init__(self) -> None:
        self.quiet = False
        self._begun: dict[str, tuple[float, threading.Timer]] = {}

    def __call__(self, event: Event) -> None:
        if event.kind == "provision.install" and not self.quiet:
            line = f"flame: installing what {event.detail} needs …"
            timer = threading.Timer(_PATIENCE, print, (line,), {"file": sys.stderr, "flush": True})
            timer.daemon = True
            timer.start()
            self._begun[event.detail] = (time.monotonic(), timer)
        elif event.kind == "provision.installed" and event.detail in self._begun:
            begun, timer = self._begun.pop(event.detail)
            timer.cancel()
            spent = time.monotonic() - begun
            if spent > _PATIENCE:
                print(f"flame: installing what {event.detail} needs: {spent:.1f} s", file=sys.stderr, flush=True)
