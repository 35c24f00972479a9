"""How the client's commands print: as the host's do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any

import typer

from flame_host.api import FlameError
from flame_host.cli.output import FAILED, INTERRUPTED, STYLE, print_json, run, show, table, timestamp

__all__ = ["STYLE", "as_json", "errors", "run", "table", "timestamp"]


def as_json(value: Mapping[str, Any]) -> None:
    """Print an object, with the version of its shape."""
    print_json(value)


@contextlib.contextmanager
def errors() -> Iterator[None]:
    """An error of ours ends the command with status 1 and no traceback; Ctrl-C with 130, as shells expect."""
    try:
        yield
    except FlameError as error:
        show(error)
        raise typer.Exit(FAILED) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
