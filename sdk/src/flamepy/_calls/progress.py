"""A line on the terminal that says how far a map is."""

from __future__ import annotations

import shutil
import sys
import time

_DELAY = 0.5  # seconds before it appears: quick things need no bar
_EVERY = 0.1


class Progress:
    """Written to standard error, drawn at most ten times a second, gone when closed."""

    def __init__(self, label: str, total: int | None) -> None:
        self._label = f"{label} " if label else ""
        self._total = total
        self._done = 0
        self._began = time.monotonic()
        self._next = self._began + _DELAY
        self._drawn = False

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if now >= self._next:
            self._next = now + _EVERY
            self._draw(now)

    def close(self) -> None:
        if self._drawn:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()

    def _draw(self, now: float) -> None:
        rate = self._done / max(now - self._began, 1e-9)
        text = f"{self._label}{self._done}"
        if self._total:
            left = max(0.0, (self._total - self._done) / rate)
            filled = round(24 * self._done / self._total)
            text = f"{self._label}[{'█' * filled}{'·' * (24 - filled)}] {self._done}/{self._total}  {left:.0f} s left"
        text += f"  {rate:,.0f}/s"
        sys.stderr.write("\r" + text[: shutil.get_terminal_size().columns - 1] + "\x1b[K")
        sys.stderr.flush()
        self._drawn = True
