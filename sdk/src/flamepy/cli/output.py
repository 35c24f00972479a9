"""How the command line prints: tables for people, JSON for programs, errors with what to do."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import typer

from flame_host.api import FlameError


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; plain text, so that it can be piped."""
    cells = [[str(cell) for cell in row] for row in rows]
    widths = [max(len(name), *(len(row[index]) for row in cells)) if cells else len(name) for index, name in enumerate(columns)]
    for line in (list(columns), *cells):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def as_json(value: Any) -> None:
    typer.echo(json.dumps(value, indent=2, default=str))


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """An error of ours ends the command with status 1 and no traceback; Ctrl-C with 130, as shells expect."""
    try:
        yield
    except FlameError as error:
        typer.secho(f"error: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)
        raise typer.Exit(1) from None
    except KeyboardInterrupt:
        raise typer.Exit(130) from None
