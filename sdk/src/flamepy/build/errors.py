"""What can be wrong with a project that is to be built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flame_host.api import FlameError

__all__ = ["BuildError", "Problem"]


@dataclass(frozen=True, order=True)
class Problem:
    """One thing to mend.

    Attributes:
        file: relative to the project; empty when it is not about one file. line: 0 when it is about the file as a whole.
    """

    file: str
    line: int
    message: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.message}" if place else self.message


class BuildError(FlameError, ValueError):
    """The project cannot be built.

    Attributes:
        problems: every one that was found, none left out.
    """

    def __init__(self, problems: Sequence[Problem] | str, *, hint: str = "") -> None:
        self.problems = (Problem("", 0, problems),) if isinstance(problems, str) else tuple(sorted(set(problems)))
        if len(self.problems) == 1:
            message = str(self.problems[0])
        else:
            message = f"{len(self.problems)} problems:\n" + "\n".join(f"  {problem}" for problem in self.problems)
        super().__init__(message, hint=hint)
