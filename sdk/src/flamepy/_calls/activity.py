"""What takes long before the first task runs - packing, uploading, installing - said once it has taken a second."""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from flamepy._calls import screen

if TYPE_CHECKING:
    from flame_host.api import Event

_DELAY = 1.0
_EVERY = 0.5

_WORDS = {
    "provision.fetch": "fetching the package",
    "provision.unpack": "unpacking",
    "provision.install": "installing dependencies",
}
_INSTALLED = "provision.installed"
_ENDS = ("executor.ready", "executor.failed", "session.closed")


class Activity:
    """One thing under way, for one application; the next takes its place.

    Attributes:
        quiet: say nothing, as ``FLAME_PROGRESS=0`` has it.
    """

    def __init__(self) -> None:
        self.quiet = False
        self._lock = threading.Lock()
        self._text = ""
        self._began = 0.0
        self._said = False
        self._changed = threading.Condition(self._lock)
        self._thread: threading.Thread | None = None

    def begin(self, text: str) -> None:
        if self.quiet or os.environ.get("FLAME_PROGRESS") == "0":
            return
        with self._lock:
            self._finish()
            self._text, self._began, self._said = text, time.monotonic(), False
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="flame-activity", daemon=True)
                self._thread.start()
            self._changed.notify()

    def end(self, text: str = "") -> None:
        """What is under way is over; with a text, only if it is that."""
        with self._lock:
            if text and text != self._text:
                return
            self._finish()
            self._changed.notify()

    @contextlib.contextmanager
    def of(self, text: str) -> Iterator[None]:
        self.begin(text)
        try:
            yield
        finally:
            self.end(text)

    def observe(self, event: Event) -> None:
        """An event of the host: what is provided for an application, until a worker is ready."""
        if event.kind in _WORDS:
            self.begin(f"{event.detail}: {_WORDS[event.kind]}")
        elif event.kind == _INSTALLED:
            self.end(f"{event.detail}: {_WORDS['provision.install']}")
        elif event.kind in _ENDS and self._text:
            self.end()

    def _finish(self) -> None:
        if self._said:
            if screen.is_terminal():
                screen.erase()
            else:
                screen.line(f"flame: {self._text} took {time.monotonic() - self._began:.0f} s")
        self._text, self._said = "", False

    def _watch(self) -> None:
        with self._lock:
            while self._text:
                took = time.monotonic() - self._began
                if took < _DELAY:
                    self._changed.wait(_DELAY - took)
                    continue
                if screen.is_terminal():
                    screen.draw(f"flame: {self._text}  {took:.0f} s")
                elif not self._said:
                    screen.line(f"flame: {self._text} …")
                self._said = True
                self._changed.wait(_EVERY)
            self._thread = None
