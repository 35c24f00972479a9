"""Rounds, ratios and tables. Machines are noisy: only the ratio of two figures taken side by side is worth a promise."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

HEAD = ("workload", "contender", "min / median / max", "ours to it", "promise")


class Unavailable(Exception):
    """A contender that cannot take part, and why."""


@dataclass(frozen=True)
class Promise:
    """What ours must not exceed: ``most`` times another's figure, or that figure plus ``most``, or ``most`` itself.

    Attributes:
        other: the contender compared with; "" for a figure that stands for itself.
    """

    other: str
    most: float
    plus: bool = False

    def measured(self, figures: dict[str, list[float]]) -> list[float]:
        ours = figures["ours"]
        if not self.other:
            return ours
        pairs = list(zip(ours, figures[self.other], strict=True))
        return [one - two for one, two in pairs] if self.plus else [one / two for one, two in pairs if two]

    def verdict(self, figures: dict[str, list[float]], unit: str) -> str:
        value = statistics.median(self.measured(figures))
        sign = f"≤ +{self.most:g} {unit}" if self.plus and self.other else f"≤ {self.most:g} {unit if not self.other else '×'}"
        if value <= self.most:
            return f"{sign} met"
        by = f" by {value / self.most:.2f} ×" if self.most else ""
        return f"{sign} MISSED{by}"


@dataclass
class Row:
    """One workload: a figure per contender and round, and what is promised of ours."""

    name: str
    unit: str
    promises: list[Promise] = field(default_factory=list)
    figures: dict[str, list[float]] = field(default_factory=dict)

    def cells(self) -> list[tuple[str, ...]]:
        found: list[tuple[str, ...]] = []
        for contender, values in self.figures.items():
            shown = f"{spread(values)} {self.unit}"
            promise = next((one for one in self.promises if one.other == ("" if contender == "ours" else contender)), None)
            ratio = ""
            if contender != "ours" and "ours" in self.figures:
                measured = promise if promise is not None and promise.plus else Promise(contender, 0)
                ratio = spread(measured.measured(self.figures)) + (f" {self.unit} more" if measured.plus else " ×")
            verdict = promise.verdict(self.figures, self.unit) if promise is not None and "ours" in self.figures else ""
            found.append((self.name, contender, shown, ratio, verdict))
        return found

    def as_json(self) -> dict[str, Any]:
        promises = [
            {"other": one.other, "most": one.most, "plus": one.plus, "measured": one.measured(self.figures)}
            for one in self.promises
            if "ours" in self.figures and one.other in ("", *self.figures)
        ]
        return {"name": self.name, "unit": self.unit, "figures": self.figures, "promises": promises}


def spread(values: list[float]) -> str:
    return " / ".join(_short(value) for value in (min(values), statistics.median(values), max(values)))


def _short(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def interleave(row: Row, contenders: Mapping[str, Callable[[], Any]], rounds: int) -> Row:
    """Ask every contender once a round, so that what slows the machine slows them alike; leave out who cannot take part."""
    left_out: set[str] = set()
    for number in range(rounds):
        for name, measure in contenders.items():
            if name in left_out:
                continue
            _progress(f"{row.name}: round {number + 1} of {rounds}, {name}")
            try:
                row.figures.setdefault(name, []).append(float(measure()))
            except Unavailable as reason:
                _progress("")
                print(f"{row.name}: {name} is left out: {reason}", file=sys.stderr)
                left_out.add(name)
                row.figures.pop(name, None)
    _progress("")
    return row


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def print_table(rows: list[Row]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(*HEAD)
    for row in rows:
        for index, cells in enumerate(row.cells()):
            style = "red" if "MISSED" in cells[-1] else "green" if cells[-1] else None
            table.add_row(cells[0] if not index else "", *cells[1:], style=style, end_section=index == len(row.figures) - 1)
    console = Console()
    (console if console.is_terminal else Console(width=150)).print(table)


def print_markdown(rows: list[Row]) -> None:
    print(f"| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for row in rows:
        for index, cells in enumerate(row.cells()):
            print(f"| {' | '.join(('' if index else cells[0], *cells[1:]))} |")
