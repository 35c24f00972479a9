"""One style for every command of this project: plain tables for people, JSON for programs, errors that say what to do.

The client's commands use it, too.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timezone
from enum import Enum
from typing import Any

import typer

from flame_host.api import FlameError

SCHEMA_VERSION = 1
"""Of everything printed with ``--json``; a field that changes its meaning, or goes, raises it."""

OK, FAILED, USAGE, INTERNAL, INTERRUPTED = 0, 1, 2, 70, 130
"""Exit codes: fine; something is not as it should be; typed wrongly; a fault of ours; Ctrl-C, as shells expect."""

STYLE: dict[str, Any] = {
    "no_args_is_help": True,
    "pretty_exceptions_enable": False,
    "rich_markup_mode": None,  # plain text: honours NO_COLOR, and can be piped
    "context_settings": {"help_option_names": ["-h", "--help"]},
}
"""For each ``typer.Typer``."""


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Columns as wide as their widest cell; the last one is not padded."""
    lines = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns) - 1)]
    for line in lines:
        typer.echo("  ".join([*(cell.ljust(width) for cell, width in zip(line, widths, strict=False)), line[-1]]).rstrip())


def print_json(facts: Mapping[str, Any]) -> None:
    """An object that begins with the version of its shape."""
    typer.echo(json.dumps({"schema_version": SCHEMA_VERSION, **facts}, indent=2, default=_plain))


def _plain(value: object) -> object:
    return value.value if isinstance(value, Enum) else sorted(map(str, value)) if isinstance(value, (set, frozenset)) else str(value)


def timestamp(seconds: float) -> str | None:
    """A moment since the epoch as RFC 3339 has it, in UTC; None for 0, which stands for "never"."""
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="milliseconds").replace("+00:00", "Z") if seconds else None


def run(app: Callable[..., Any], name: str) -> None:
    """The program: it ends with an exit code and at most a message; a traceback is shown only when FLAME_DEBUG asks for it."""
    if os.environ.get("NO_COLOR"):
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
    try:
        app(prog_name=name)
    except FlameError as error:
        fail(error)
    except BrokenPipeError:  # `flame … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        _unexpected(name, error)


def fail(error: FlameError) -> None:
    """Print an error of ours and end; status 2 is left to what was typed wrongly."""
    show(error)
    sys.exit(FAILED)


def show(error: FlameError) -> None:
    typer.secho(f"error: {error}", err=True, fg=typer.colors.RED if sys.stderr.isatty() else None)


def _unexpected(name: str, error: Exception) -> None:
    if os.environ.get("FLAME_DEBUG"):
        traceback.print_exc()
    where = traceback.extract_tb(error.__traceback__)[-1]
    typer.echo(f"error: {type(error).__name__}: {error}  (at {os.path.basename(where.filename)}:{where.lineno})", err=True)
    if isinstance(error, OSError):  # of the machine: what it says is what there is to know
        sys.exit(FAILED)
    typer.echo(f"  → this is a fault of {name}; FLAME_DEBUG=1 shows the traceback to report it with", err=True)
    sys.exit(INTERNAL)
