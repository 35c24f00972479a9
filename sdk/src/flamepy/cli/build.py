"""``flame build``, ``flame undeploy``, and ``flame run --handler``: from ``@remote`` functions to endpoints."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flame_host.api import FlameError
from flamepy.cli.output import as_json, errors, table

if TYPE_CHECKING:
    from types import FrameType

    from flamepy.build.project import BuildReport

__all__ = ["app", "build", "serve_handler", "undeploy"]

app = typer.Typer(rich_markup_mode=None, pretty_exceptions_enable=False)

Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Project = Annotated[Path, typer.Argument(file_okay=False, exists=True, help="Directory of the project.")]


@app.command()
def build(
    project: Project = Path("."),
    output: Annotated[str, typer.Option("--output", "-o", help="A name in .flash/, or a path.")] = "archive.tar.gz",
    no_deps: Annotated[bool, typer.Option("--no-deps", help="Only what the project names itself, not what that needs.")] = False,
    keep_build: Annotated[bool, typer.Option("--keep-build", help="Leave the directory the archive is made of.")] = False,
    exclude: Annotated[
        list[str] | None, typer.Option("--exclude", help="Pattern of files to leave out; may be repeated, or a list with commas.")
    ] = None,
    python: Annotated[str, typer.Option("--python", help="Version the workers will have, like 3.12.")] = "",
    platform: Annotated[str, typer.Option("--platform", help="Platform of the workers, like x86_64-manylinux_2_28.")] = "",
    size_limit: Annotated[int, typer.Option("--size-limit", min=1, help="Most MiB the archive may have.")] = 500,
    json: Json = False,
) -> None:
    """Make the archive of a project's @remote functions: handlers, manifest and dependencies."""
    from flamepy.build.project import build_project

    excluded = [name.strip() for names in exclude or () for name in names.split(",") if name.strip()]
    with errors(), _problems_as_json(json):
        report = build_project(
            project,
            output=output,
            no_deps=no_deps,
            keep_build=keep_build,
            exclude=excluded,
            python=python,
            platform=platform,
            progress=_progress,
            size_limit=size_limit << 20,
        )
        as_json(report.to_json()) if json else _show(report)


def _progress(step: str) -> None:
    typer.echo(f"  {step}", err=True)


def _show(report: BuildReport) -> None:
    from flamepy.build.archive import human_size, largest

    resources = report.manifest["resources"]
    rows = [
        (name, about["resource_type"], about["handler_file"], ", ".join(function["name"] for function in about["functions"]))
        for name, about in resources.items()
    ]
    table(("resource", "type", "handler", "functions"), rows)
    for note in report.notes:
        typer.echo(f"note: {note}")
    parts = ", ".join(f"{part} {human_size(size)}" for part, size in largest(report.sizes, 6).items())
    typer.echo(f"\n{report.archive}  {human_size(report.size)}, {report.files} files; the largest before compression: {parts}")
    typer.echo(f"sha256 {report.digest}")
    typer.echo(f"\ntry it:  flame run --handler {_shown(report.archive)}")


def _shown(path: Path) -> str:
    """As short as it can be typed from here."""
    with contextlib.suppress(ValueError):
        return str(path.relative_to(Path.cwd()))
    return str(path)


@contextlib.contextmanager
def _problems_as_json(json: bool) -> Iterator[None]:
    """With ``--json``, a failure is printed as JSON too, each problem with its place."""
    try:
        yield
    except FlameError as error:
        if not json:
            raise
        problems = [{"file": each.file, "line": each.line, "message": each.message} for each in getattr(error, "problems", ())]
        as_json({"error": error.message, "hint": error.hint, "problems": problems})
        raise typer.Exit(1) from None


@app.command()
def undeploy(project: Project = Path("."), json: Json = False) -> None:
    """Remove what `flame build` has made in a project."""
    from flamepy.build.project import clean_project

    with errors():
        removed = [str(path) for path in clean_project(project)]
    if json:
        as_json({"removed": removed})
        return
    for path in removed:
        typer.echo(f"removed {path}")
    if not removed:
        typer.echo("nothing to remove")


def serve_handler(
    archive: Annotated[Path, typer.Argument(help="What flame build made.")],
    host: Annotated[
        str, typer.Option("--host", help="Address to listen at; whoever reaches it and has the token can run code here.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8888,
    json: Json = False,
) -> None:
    """Serve a built archive over HTTP until interrupted. With JSON, one line says where, once it listens.

    The token that requests have to show is FLAME_ENDPOINT_KEY, or else a random one.
    """
    with errors(), _terminated_like_interrupted():
        server = _opened(archive, host, port)
        try:
            _announce(server, json)
            server.wait()
        except KeyboardInterrupt:
            typer.echo("stopping", err=True)
        finally:
            server.close()


def _opened(archive: Path, host: str, port: int) -> Any:
    from flame_host.api import ConfigError
    from flamepy.build.server import HandlerServer

    try:
        return HandlerServer(archive, host=host, port=port, token=os.environ.get("FLAME_ENDPOINT_KEY", ""))
    except (OSError, OverflowError) as error:
        if isinstance(error, FlameError):
            raise
        raise ConfigError(f"cannot listen at {host}:{port}: {error}", hint="choose another with --port, or 0 for a free one") from error


def _announce(server: Any, json: bool) -> None:
    resources = {name: server.url_of(name) for name in server.manifest["resources"]}
    if json:
        import json as encoder

        typer.echo(
            encoder.dumps({"url": server.url, "token": server.token, "resources": resources})
        )  # on one line, for whoever waits for it
    else:
        typer.echo(f"serving {server.url}  (POST /runsync, POST /run, GET /status/<id>; Ctrl-C ends it)")
        typer.echo(f"requests show its token:  Authorization: Bearer {server.token}")
        table(("resource", "url"), list(resources.items()))
    sys.stdout.flush()


@contextlib.contextmanager
def _terminated_like_interrupted() -> Iterator[None]:
    """A service manager's SIGTERM must stop the workers as Ctrl-C does."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
