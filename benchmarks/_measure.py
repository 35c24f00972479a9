"""Rounds, ratios and a table. Machines are noisy: only medians of ratios taken side by side are worth printing."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass
class Row:
    """One workload: a figure per contender and round, and what is promised of the ratios.

    Attributes:
        promises: (contender, ratio of ours to it that must not be exceeded).
    """

    name: str
    unit: str
    figures: dict[str, list[float]] = field(default_factory=dict)
    promises: list[tuple[str, float]] = field(default_factory=list)

    def ratios(self, contender: str) -> list[float]:
        return [ours / theirs for ours, theirs in zip(self.figures["ours"], self.figures[contender], strict=True) if theirs]

    def lines(self) -> list[str]:
        found = []
        for contender, values in self.figures.items():
            shown = f"{min(values):.4g} / {statistics.median(values):.4g} / {max(values):.4g} {self.unit}"
            ratio = "" if contender == "ours" else f"{statistics.median(self.ratios(contender)):.2f} ×"
            promise = next((most for other, most in self.promises if other == contender), None)
            verdict = ""
            if promise is not None:
                verdict = f"≤ {promise:g} × {'met' if statistics.median(self.ratios(contender)) <= promise else 'MISSED'}"
            found.append(f"| {self.name} | {contender} | {shown} | {ratio} | {verdict} |")
        return found


HEAD = "| workload | contender | min / median / max | ours to it | promised |\n|---|---|---|---|---|"


def interleave(row: Row, contenders: dict[str, Callable[[], float]], rounds: int) -> Row:
    """Every contender once a round, so that what slows the machine slows them alike."""
    for _ in range(rounds):
        for name, measure in contenders.items():
            row.figures.setdefault(name, []).append(measure())
    return row
