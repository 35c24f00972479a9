"""``flame-host env``: what the host keeps on disk, and getting rid of it."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer

from flame_host._store import ContentStore, EntryInfo

app = typer.Typer(no_args_is_help=True, help="Environments and unpacked packages that the host keeps.")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command("list")
def list_entries(as_json: Json = False) -> None:
    """Every environment and tree, with its size and last use."""
    entries = list(_store().entries())
    if as_json:
        typer.echo(json.dumps([_record(info) for info in entries], indent=2))
        return
    if not entries:
        typer.echo("nothing yet: environments are made when an application first runs")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table("kind", "key", "size", "last use", "state", "what")
    for info in entries:
        table.add_row(info.kind, info.key[:12], _size(info.size), _ago(info.last_use), _state(info), _what(info))
    Console().print(table)
    typer.echo(f"{len(entries)} directories, {_size(sum(info.size for info in entries))} in {_store().root}")


@app.command()
def show(key: Annotated[str, typer.Argument(help="The key, or its beginning.")], as_json: Json = False) -> None:
    """One of them in full."""
    found = [info for info in _store().entries() if info.key.startswith(key)]
    if len(found) != 1:
        typer.echo(f"{len(found)} environments begin with {key!r}; `flame-host env list` shows them", err=True)
        raise typer.Exit(1)
    record = _record(found[0])
    if as_json:
        typer.echo(json.dumps(record, indent=2))
        return
    for name, value in record.items():
        typer.echo(f"{name:>12}  {value}")


@app.command()
def prune(
    older_than: Annotated[float, typer.Option(help="Days since the last use.")] = 30.0,
    everything: Annotated[bool, typer.Option("--all", help="Whatever its age.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    as_json: Json = False,
) -> None:
    """Remove what has not been used for a while, and what was left half-made. Never what is in use."""
    since = float("inf") if everything else time.time() - older_than * 86400
    removed = _store().prune(since, dry_run=dry_run)
    if as_json:
        typer.echo(json.dumps([_record(info) for info in removed], indent=2))
        return
    for info in removed:
        typer.echo(f"{info.kind} {info.key[:12]}  {_size(info.size)}  {_what(info)}")
    verb = "would free" if dry_run else "freed"
    typer.echo(f"{verb} {_size(sum(info.size for info in removed))} in {len(removed)} directories")


def _store() -> ContentStore:
    from flame_host._config import root

    return ContentStore(root())


def _record(info: EntryInfo) -> dict[str, object]:
    return {**asdict(info), "path": str(info.path), "facts": dict(info.facts)}


def _state(info: EntryInfo) -> str:
    return "half-made" if not info.complete else "in use" if info.in_use else "free"


def _what(info: EntryInfo) -> str:
    facts = info.facts
    if "requirements" in facts and isinstance(facts["requirements"], list):
        wanted = ", ".join(facts["requirements"]) or "no dependencies"
        return f"Python {facts.get('version', '?')}: {wanted}"
    return "a package's files"


def _size(size: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    raise AssertionError


def _ago(moment: float) -> str:
    seconds = max(0.0, time.time() - moment)
    for limit, unit in ((60, "s"), (60, "min"), (24, "h")):
        if seconds < limit:
            return f"{seconds:.0f} {unit} ago"
        seconds /= limit
    return f"{seconds:.0f} d ago"
