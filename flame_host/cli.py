"""``flame-host``: what an operator and a plugin author ask of the host."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flame_host import Host, __version__
from flame_host._env_cli import app as env_app
from flame_host._plugins import PluginRecord, Status
from flame_host.api import FlameError

app = typer.Typer(no_args_is_help=True, add_completion=True, help="The executor host: its plugins, environments and health.")
app.add_typer(env_app, name="env")
with contextlib.suppress(ImportError):  # needs the extra "grpc"
    from flame_host._template import template

    app.command()(template)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def main() -> None:
    """Entry point: errors of ours are told in their own words, without a traceback."""
    try:
        app()
    except FlameError as error:
        typer.echo(f"{type(error).__name__}: {error}", err=True)
        sys.exit(1)


@app.callback(invoke_without_command=True)
def options(
    context: typer.Context,
    plugin: Annotated[list[str] | None, typer.Option("-p", help="no:NAME keeps a plugin from being imported.")] = None,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit
    for given in plugin or ():
        kind, _, name = given.partition(":")
        if kind != "no" or not name:
            raise typer.BadParameter(f"{given!r}: -p no:NAME is wanted")
        blocked = os.environ.get("FLAME_HOST_NO_PLUGINS", "")
        os.environ["FLAME_HOST_NO_PLUGINS"] = f"{blocked},{name}".strip(",")


@app.command()
def plugins(
    as_json: Json = False,
) -> None:
    """Every plugin found: where it comes from, what it offers, and why it is not used if it is not."""
    records = Host().catalog.records
    if as_json:
        typer.echo(json.dumps([{**asdict(record), "status": record.status.value} for record in records], indent=2))
    else:
        _print_plugins(records)
    if any(record.status in (Status.FAILED, Status.INCOMPATIBLE, Status.SHADOWED) for record in records):
        raise typer.Exit(1)


def _print_plugins(records: list[PluginRecord]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table("plugin", "distribution", "version", "status", "offers")
    for record in records:
        offers = ", ".join(record.offers) if record.status is Status.ACTIVE else record.reason
        table.add_row(record.name, record.distribution, record.version, record.status.value, offers)
    Console().print(table)


@app.command()
def doctor(as_json: Json = False) -> None:
    """Check what applications need of this machine, and say what to do where something is amiss."""
    checks = [_check_python(), _check_root(), *_check_plugins(), _check_uv(), _check_shared_memory()]
    if as_json:
        typer.echo(json.dumps([{"check": name, "ok": ok, "detail": detail} for name, ok, detail in checks], indent=2))
    else:
        for name, ok, detail in checks:
            typer.echo(f"{'ok  ' if ok else 'FAIL'} {name:<14} {detail}")
    if not all(ok for _, ok, _ in checks):
        raise typer.Exit(1)


def _check_python() -> tuple[str, bool, str]:
    version = ".".join(map(str, sys.version_info[:3]))
    return "Python", sys.version_info >= (3, 10), f"{version} at {sys.executable}"


def _check_root() -> tuple[str, bool, str]:
    try:
        root = Host().root
        free = shutil.disk_usage(root).free
        status = root.stat()
    except (FlameError, OSError) as error:
        return "directory", False, str(error)
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        return "directory", False, f"{root} can be written to by others; run  chmod 700 {root}"
    return "directory", free > 1 << 30, f"{root}, {free / (1 << 30):.1f} GiB free"


def _check_plugins() -> list[tuple[str, bool, str]]:
    catalog = Host().catalog
    checks = [
        ("plugin", False, f"{record.name} ({record.distribution}): {record.reason}")
        for record in catalog.records
        if record.status not in (Status.ACTIVE, Status.DISABLED)
    ]
    for family in ("stores", "archivers", "installers", "serializers", "caches", "engines"):
        names = list(catalog.all(family))
        checks.append((family, bool(names), ", ".join(names) or "none: install at least one plugin of this family"))
    return checks


def _check_uv() -> tuple[str, bool, str]:
    try:
        return "uv", True, Host().catalog.installer("uv").identity()
    except FlameError as error:
        return "uv", False, str(error)


def _check_shared_memory() -> tuple[str, bool, str]:
    try:
        fd = os.memfd_create("flame-doctor")
    except (OSError, AttributeError) as error:
        return "shared memory", False, f"memfd_create: {error}; large results need Linux 3.17 or later"
    os.close(fd)
    return "shared memory", True, "anonymous, leaves nothing in " + str(Path("/dev/shm"))
