"""``flame``: run programs, look at packages, check this machine."""

from __future__ import annotations

import dataclasses
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer

from flamepy.cli.output import as_json, errors, table

app = typer.Typer(
    name="flame",
    help="Run functions, classes and instances of a Python project as remote tasks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # plain text: honours NO_COLOR, and can be piped
)
env_app = typer.Typer(
    help="What the host keeps on this machine.", no_args_is_help=False, invoke_without_command=True, rich_markup_mode=None
)
app.add_typer(env_app, name="env")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    context: typer.Context,
    script: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="The program; what follows is its own.")] = None,
    engine: Annotated[str, typer.Option("--engine", "-e", help="Engine for its Runners, over what its project says.")] = "",
    logs: Annotated[str, typer.Option("--logs", help="Output of workers: all, errors, none.")] = "",
    handler: Annotated[Path | None, typer.Option("--handler", help="In place of a program: serve an archive of flame build.")] = None,
    host: Annotated[str, typer.Option("--host", help="With --handler: address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="With --handler: 0 takes a free one.")] = 8888,
    json: Json = False,
) -> None:
    """Run a program as python does, or serve a built archive over HTTP."""
    if (script is None) == (handler is None):
        raise typer.BadParameter("name a program, or an archive with --handler", param_hint="SCRIPT")
    if handler is not None:
        from flamepy.cli.build import serve_handler

        serve_handler(handler, host, port, json)
        return
    if engine:
        os.environ["FLAME_ENGINE"] = engine
    if logs:
        os.environ["FLAME_LOGS"] = logs
    # Programs for another SDK mean ours when this runs them, whether theirs is installed or not.
    from flamepy.flash.names import MODULES

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(MODULES), os.environ.get("PYTHONPATH", "")]))
    # In this process's place: its tracebacks, signals and exit status are then just what python gives.
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(script), *context.args])


@app.command()
def pack(
    project: Annotated[Path, typer.Argument(file_okay=False, exists=True, help="Directory to pack.")] = Path("."),
    explain: Annotated[bool, typer.Option("--explain", help="Say of each path why it is in or out; write nothing.")] = False,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Where to write the archive.")] = None,
    json: Json = False,
) -> None:
    """Make the package of a project, or explain it."""
    from flamepy._config.settings import resolve
    from flamepy._package.selection import explain as explained

    with errors():
        settings = resolve(project, {"engine": "local:"})
        if explain:
            decisions = explained(project, settings.excludes, settings.includes)
            if json:
                as_json([dataclasses.asdict(decision) for decision in decisions])
                return
            for decision in decisions:
                why = f"   ({decision.reason})" if decision.reason else ""
                typer.echo(f"{'+' if decision.included else '-'} {decision.path}{why}")
            inside = sum(decision.included for decision in decisions)
            typer.echo(f"{inside} files are in the package, {len(decisions) - inside} paths are out", err=True)
            return
        made = _pack(project, settings)
        suffix = made.pop("suffix")
        target = output or Path(f"{project.resolve().name}-{made['digest'][:16]}{suffix}")
        target.write_bytes(Path(made.pop("archive")).read_bytes())
        made["path"] = str(target)
        as_json(made) if json else typer.echo(f"{target}  {made['size']} bytes, {made['files']} files, sha256 {made['digest']}")


def _pack(project: Path, settings: Any) -> dict[str, Any]:
    from flame_host import Host
    from flame_host.api import negotiate
    from flamepy._package.pack import pack_files
    from flamepy._package.project import Located, checked_root
    from flamepy._package.shipment import assemble
    from flamepy._package.sizes import weigh

    host = Host()
    plan = negotiate(settings.wants, host.capabilities(), host.capabilities(), settings.policy)
    archiver = host.catalog.archiver(plan.archiver)
    located = Located(checked_root(project), None, "flame pack")
    shipment = assemble(host, located, settings.excludes, settings.includes, host.root / "packs")
    weigh(shipment.base, shipment.files, settings.package_limit)
    host.check_listing(shipment.files, shipment.links)
    made = pack_files(shipment.base, shipment.files, archiver, host.root / "packs", shipment.extra)
    return {"archive": made.path, "suffix": archiver.suffixes[0], "digest": made.digest, "size": made.size, "files": made.files}


@app.command()
def plugins(json: Json = False) -> None:
    """List every plugin: what it offers, and why one is not active."""
    from flame_host import Host

    with errors():
        records = Host().catalog.records
    if json:
        as_json([dataclasses.asdict(record) for record in records])
        return
    rows = [
        (record.name, record.distribution, record.version, record.status.value, record.reason or " ".join(record.offers))
        for record in records
    ]
    table(("plugin", "distribution", "version", "status", "offers"), rows)


@app.command()
def doctor(json: Json = False) -> None:
    """Check what Runners need on this machine; status 1 when something is missing, with the fix."""
    from flamepy.cli.doctor import checks

    with errors():
        found = checks()
    if json:
        as_json([dataclasses.asdict(check) for check in found])
    else:
        for check in found:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<12} {check.detail}")
            if not check.ok and check.fix:
                typer.echo(f"      → {check.fix}")
    if not all(check.ok for check in found):
        raise typer.Exit(1)


@env_app.callback()
def env(json: Json = False) -> None:
    """Where environments, trees and packages are kept, and how much room they take."""
    from flame_host import Host

    with errors():
        root = Host().root
    parts = {entry.name: _size(entry) for entry in sorted(root.iterdir()) if entry.is_dir()}
    if json:
        as_json({"root": str(root), "bytes": parts})
        return
    typer.echo(f"{root}")
    table(("part", "MiB"), [(name, f"{size / (1 << 20):.1f}") for name, size in parts.items()])


def _size(directory: Path) -> int:
    total = 0
    for place, _, files in os.walk(directory):
        for name in files:
            try:
                total += os.lstat(os.path.join(place, name)).st_size
            except FileNotFoundError:  # somebody else tidies up
                continue
    return total


if find_spec("flamepy.cli.build") is not None:
    from importlib import import_module

    # Its commands are written where its code is.
    _build = import_module("flamepy.cli.build")
    if hasattr(_build, "app"):
        app.add_typer(_build.app)


def main() -> None:
    app()
