"""The one line at the bottom of the terminal, and what is printed above it.

Bars and activities draw that line through here and lines of workers are written through here, so that neither is ever glued to the
other. While a line stands, `sys.stdout`, `sys.stderr` and the logging handlers that write to them go through here, too.
"""

from __future__ import annotations

import logging
import shutil
import sys
import threading
from typing import Any, TextIO

_lock = threading.RLock()
_shown = ""
_aside: list[_Aside] = []


def is_terminal() -> bool:
    """Whether somebody is looking who can see a line change."""
    try:
        return sys.stderr is not None and sys.stderr.isatty()
    except ValueError:  # closed
        return False


def in_notebook() -> bool:
    """Whether output goes to a notebook, where a widget is shown in place of a line."""
    module = sys.modules.get("IPython")
    shell = module.get_ipython() if module is not None else None
    return shell is not None and hasattr(shell, "kernel")


def draw(text: str) -> None:
    """Show a line in place of the one that stands."""
    global _shown
    with _lock:
        if not _aside:
            _step_aside()
        _shown = text[: shutil.get_terminal_size().columns - 1]
        _write("\r" + _shown + "\x1b[K")


def erase() -> None:
    """Take the line away."""
    global _shown
    with _lock:
        if _shown:
            _write("\r\x1b[K")
        _shown = ""
        _come_back()


def line(text: str) -> None:
    """Write a line that stays, above the one that stands."""
    with _lock:
        if _shown:
            _write(f"\r\x1b[K{text}\n{_shown}")
        else:
            _write(text + "\n")


def _write(text: str) -> None:
    stream = _stream()
    try:
        stream.write(text)
        stream.flush()
    except (ValueError, OSError, AttributeError):  # closed, or gone with its terminal
        return


def _stream() -> Any:
    stream = sys.stderr
    return stream.stream if isinstance(stream, _Aside) else stream


class _Aside:
    """A stream that takes the line away before anything is written, and puts it back after a line's end."""

    def __init__(self, name: str, stream: TextIO) -> None:
        self.name = name
        self.stream = stream
        self._whole = True  # whether what was written ended with a line's end

    def write(self, text: str) -> int:
        with _lock:
            if self._whole and _shown:
                _write("\r\x1b[K")
            written = self.stream.write(text)
            self._whole = text.endswith("\n") if text else self._whole
            if self._whole and _shown:
                self.stream.flush()
                _write(_shown)
            return written

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _step_aside() -> None:
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is not None and stream.isatty():
            aside = _Aside(name, stream)
            _aside.append(aside)
            setattr(sys, name, aside)
            _move_handlers(stream, aside)


def _come_back() -> None:
    for aside in _aside:
        if getattr(sys, aside.name) is aside:
            setattr(sys, aside.name, aside.stream)
        _move_handlers(aside, aside.stream)
    _aside.clear()


def _move_handlers(stream: Any, other: Any) -> None:
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.StreamHandler) and handler.stream is stream:
            handler.stream = other
