"""``flame``: run programs, look at packages, check this machine."""

from __future__ import annotations

import dataclasses
import os
import platform
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from flame_host.cli import env as host_env
from flame_host.cli import plugins as host_plugins
from flamepy.cli.build import app as build_app
from flamepy.cli.output import STYLE, as_json, errors
from flamepy.cli.output import run as run_app

app = typer.Typer(name="flame", help="Run functions, classes and instances of a Python project as remote tasks.", **STYLE)
# Written where their code is, and at home here.
app.add_typer(build_app)
app.add_typer(host_plugins.app, name="plugins")
app.add_typer(host_env.app, name="env")

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _version(wanted: bool) -> None:
    if wanted:
        from flamepy import __version__

        typer.echo(f"flame {__version__} (Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def options(version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False) -> None:
    """Run functions, classes and instances of a Python project as remote tasks."""


@app.command(
    context_settings={
        **STYLE["context_settings"],
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    }
)
def run(
    context: typer.Context,
    script: Annotated[Path | None, typer.Argument(exists=True, dir_okay=False, help="The program; what follows is its own.")] = None,
    engine: Annotated[str, typer.Option("--engine", "-e", help="Engine for its Runners, over what its project says.")] = "",
    logs: Annotated[str, typer.Option("--logs", help="Output of workers: all, errors, none.")] = "",
    refresh: Annotated[bool, typer.Option("--refresh", help="Install its environments anew, for newer versions on the index.")] = False,
    handler: Annotated[Path | None, typer.Option("--handler", help="In place of a program: serve an archive of flame build.")] = None,
    host: Annotated[str, typer.Option("--host", help="With --handler: address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="With --handler: 0 takes a free one.")] = 8888,
    json: Json = False,
) -> None:
    """Run a program as python does, or serve a built archive over HTTP."""
    if (script is None) == (handler is None):
        raise typer.BadParameter("name a program, or an archive with --handler", param_hint="SCRIPT")
    if handler is not None:
        if refresh or engine or logs:
            raise typer.BadParameter(
                "they are for programs; an archive has what was built into it", param_hint="--engine, --logs, --refresh"
            )
        from flamepy.cli.build import serve_handler

        serve_handler(handler, host, port, json)
        return
    if engine:
        os.environ["FLAME_ENGINE"] = engine
    if logs:
        os.environ["FLAME_LOGS"] = logs
    if refresh:
        os.environ["FLAME_REFRESH"] = "1"
    _become(script, context.args)


@app.command(
    context_settings={
        **STYLE["context_settings"],
        "allow_extra_args": True,
        "ignore_unknown_options": True,
        "allow_interspersed_args": False,
    }
)
def debug(
    context: typer.Context,
    script: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="The program; what follows is its own.")],
) -> None:
    """Run a program with its tasks in this process, and stop in pdb where one fails, with its variables there.

    What the tasks import has to be installed here.
    """
    from flamepy._config.settings import DEBUGGING_ENGINE

    os.environ |= {"FLAME_ENGINE": DEBUGGING_ENGINE, "FLAME_POST_MORTEM": "1"}
    _become(script, context.args)


def _become(script: Path | None, arguments: list[str]) -> None:
    """Run a program in this process's place: its tracebacks, signals and exit status are then just what python gives."""
    # Programs for another SDK mean ours when this runs them, whether theirs is installed or not.
    from flamepy.flash.names import MODULES

    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(MODULES), os.environ.get("PYTHONPATH", "")]))
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, str(script), *arguments])


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
        settings = resolve(project, {})
        if explain:
            decisions = explained(project, settings.excludes, settings.includes)
            if json:
                as_json({"paths": [dataclasses.asdict(decision) for decision in decisions]})
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
def doctor(json: Json = False) -> None:
    """Check what Runners need on this machine; status 1 when something is missing, with the fix."""
    from flame_host.cli.doctor import show
    from flamepy.cli.doctor import checks

    show(checks(), json)


def main() -> None:
    """Entry point."""
    run_app(app, "flame")
