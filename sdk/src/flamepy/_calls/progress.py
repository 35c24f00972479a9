"""How far a map is: a bar on the terminal, a widget in a notebook, a line now and then in a log."""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable
from typing import Any

from flamepy._calls import screen

_DELAY = 0.5  # seconds before it appears: quick things need no bar
_EVERY = 0.1
_EVERY_LINE = 10.0  # seconds between two lines in a log


def progress_for(wanted: bool | str | None, total: int | None) -> Progress | None:
    """Where somebody is looking, unless it was asked for or refused.

    Args:
        wanted: a text to put before it, True or False; None where there is a terminal or a notebook.
    """
    if wanted is False or os.environ.get("FLAME_PROGRESS") == "0":
        return None
    notebook = screen.in_notebook()
    if wanted is None and not notebook and not screen.is_terminal():
        return None
    label = wanted if isinstance(wanted, str) else ""
    return Progress(
        label, total, _widget(label, total) if notebook else _terminal if screen.is_terminal() else _log, not screen.is_terminal()
    )


class Progress:
    """Drawn at most ten times a second, gone when closed.

    Args:
        show: given the text and the part done; and an empty text at the end.
        rarely: lines that stay are written rarely.
    """

    def __init__(
        self, label: str, total: int | None, show: Callable[[str, float | None], None] | None = None, rarely: bool = False
    ) -> None:
        self._label = f"{label} " if label else ""
        self._total = total
        self._done = 0
        self._show = show or _terminal
        self._every = _EVERY_LINE if rarely and self._show is _log else _EVERY
        self._first = time.monotonic()
        self._next = self._first + _DELAY
        self._drawn = False

    def advance(self) -> None:
        self._done += 1
        now = time.monotonic()
        if self._done == 1:
            self._first = now  # what came before it - workers to start, packages to install - tells nothing of the rest
        if now >= self._next:
            self._next = now + self._every
            self._draw(now)

    def close(self) -> None:
        if self._drawn:
            if self._show is not _terminal:
                self._draw(time.monotonic())
            self._show("", None)

    def _draw(self, now: float) -> None:
        rate = (self._done - 1) / max(now - self._first, 1e-9)
        part = self._done / self._total if self._total else None
        text = f"{self._label}{self._done}"
        if self._total and part is not None:
            left = f"  {max(0.0, (self._total - self._done) / rate):.0f} s left" if rate else ""
            filled = round(24 * part)
            bar = f"[{'█' * filled}{'·' * (24 - filled)}] " if self._show is _terminal else ""
            text = f"{self._label}{bar}{self._done}/{self._total}{left}"
        self._show(f"{text}  {rate:,.0f}/s" if rate else text, part)
        self._drawn = True


def _terminal(text: str, part: float | None) -> None:
    screen.draw(text) if text else screen.erase()


def _log(text: str, part: float | None) -> None:
    if text:
        screen.line(text)


def _widget(label: str, total: int | None) -> Callable[[str, float | None], None]:
    """A widget where ipywidgets is installed, else HTML that is shown again in its place."""
    from flamepy._calls.html import bar

    display: Any = importlib.import_module("IPython.display")
    try:
        widgets: Any = importlib.import_module("ipywidgets")
    except ImportError:
        widgets = None
    made: dict[str, Any] = {}

    def show_html(text: str, part: float | None) -> None:
        if not made:
            made["handle"] = display.display(display.HTML(bar(text, part)), display_id=True)
        elif text:
            made["handle"].update(display.HTML(bar(text, part)))

    def show_widget(text: str, part: float | None) -> None:
        if not made:
            made["bar"] = widgets.FloatProgress(value=0.0, min=0.0, max=1.0)
            made["text"] = widgets.Label(text)
            display.display(widgets.HBox([made["bar"], made["text"]]))
        if text:
            made["bar"].value = 1.0 if part is None else part
            made["text"].value = text
        else:
            made["bar"].bar_style = "success"

    return show_html if widgets is None else show_widget
