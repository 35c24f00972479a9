"""``flame env``: what stands in the host's directory, how large it is, who uses it, and away with the rest.

The client mounts the same application as ``flame env``.
"""

from __future__ import annotations

import time
from typing import Any

import typer

from flame_host._packages.directories import EntryInfo
from flame_host._packages.stock import Stock
from flame_host._settings import load_settings
from flame_host.api import ConfigError
from flame_host.cli.output import STYLE, print_json, table, timestamp

app = typer.Typer(help="What the host keeps on this machine: environments, trees, packages, working directories, logs.", **STYLE)

_DAY = 86_400.0
_JSON = typer.Option(False, "--json", help="Machine-readable.")


@app.command("list")
def list_entries(as_json: bool = _JSON) -> None:
    """Everything with its size, last use, and whether it is in use; then the sums by kind."""
    entries = sorted(_stock().entries(), key=lambda entry: (entry.kind, -entry.last_use))
    if as_json:
        print_json({"entries": [_metadata(entry) for entry in entries]})
        return
    table(("KIND", "KEY", "SIZE", "LAST USE", "STATE", "FOR"), [_row(entry) for entry in entries])
    for kind in dict.fromkeys(entry.kind for entry in entries):
        own = [entry for entry in entries if entry.kind == kind]
        print(f"{kind + ':':<9} {len(own):>5}, {_bytes(sum(entry.size for entry in own))}")
    print(f"{len(entries)} entries, {_bytes(sum(entry.size for entry in entries))} in {_stock().root}")


@app.command()
def show(key: str = typer.Argument(help="The key, or an unambiguous beginning of it."), as_json: bool = _JSON) -> None:
    """All that is known about one directory."""
    metadata = _metadata(_one(key))
    if as_json:
        print_json({"entry": metadata})
        return
    for name, value in metadata.items():
        print(f"{name + ':':<12} {', '.join(map(str, value)) if isinstance(value, list) else value}")


@app.command()
def prune(
    older_than: float = typer.Option(30.0, "--older-than", metavar="DAYS", min=0, help="Remove what was not used for so long."),
    everything: bool = typer.Option(False, "--all", help="Remove all that is not in use."),
    dry_run: bool = typer.Option(False, "--dry-run", help="Only say what would go."),
    as_json: bool = _JSON,
) -> None:
    """Remove what is half-made or was not used for a while; never what is in use."""
    # A little into the future: what was used this very moment counts as unused when all is to go.
    since = time.time() + _DAY if everything else time.time() - older_than * _DAY
    removed = _stock().prune(since, dry_run=dry_run)
    if as_json:
        print_json({"removed": [_metadata(entry) for entry in removed], "dry_run": dry_run})
        return
    for entry in removed:
        print(f"{'would remove' if dry_run else 'removed'} {entry.kind}/{entry.key} ({_bytes(entry.size)})")
    print(f"{_bytes(sum(entry.size for entry in removed))} {'would be freed' if dry_run else 'freed'}")


def _stock() -> Stock:
    return Stock(load_settings().root)


def _one(key: str) -> EntryInfo:
    found = [entry for entry in _stock().entries() if entry.key.startswith(key)]
    exact = [entry for entry in found if entry.key == key]
    if len(exact or found) == 1:
        return (exact or found)[0]
    if not found:
        raise ConfigError(f"nothing has a key that begins with {key!r}", hint="see `flame env list`")
    raise ConfigError(f"{key!r} begins {len(found)} keys: {', '.join(entry.key for entry in found)}", hint="write more of it")


def _metadata(entry: EntryInfo) -> dict[str, Any]:
    return {
        "kind": entry.kind,
        "key": entry.key,
        "path": str(entry.path),
        "size": entry.size,
        "last_use": timestamp(entry.last_use),
        "in_use": entry.in_use,
        "complete": entry.complete,
        **{name: value for name, value in entry.facts.items() if name in ("application", "installer", "python", "version", "requirements")},
    }


def _row(entry: EntryInfo) -> tuple[str, ...]:
    state = "in use" if entry.in_use else "ready" if entry.complete else "half-made"
    wanted = ", ".join(entry.facts.get("requirements", ())) if entry.kind != "trees" else ""
    purpose = " ".join(part for part in (entry.facts.get("application", ""), f"[{wanted}]" if wanted else "") if part)
    return entry.kind, entry.key[:16], _bytes(entry.size), _age(time.time() - entry.last_use), state, purpose


def _bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} GiB"


def _age(seconds: float) -> str:
    for limit, length, unit in ((120, 1, "s"), (7200, 60, "min"), (2 * _DAY, 3600, "h")):
        if seconds < limit:
            return f"{max(0, seconds) / length:.0f} {unit} ago"
    return f"{seconds / _DAY:.0f} days ago"
