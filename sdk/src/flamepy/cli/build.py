"""``flame build``, ``dev``, ``deploy``, ``undeploy``, ``init`` and ``run --handler``: from ``@remote`` functions to endpoints."""

from __future__ import annotations

import contextlib
import signal
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flame_host.api import FlameError
from flamepy.cli.output import as_json, errors, table

if TYPE_CHECKING:
    from types import FrameType

    from flamepy.build.project import BuildReport

__all__ = ["app", "build", "deploy", "dev", "init", "serve_handler", "undeploy"]

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
    target: Annotated[
        str, typer.Option("--target", help="Kind of workers: runpod, here; by default what the program is written for.")
    ] = "",
    without: Annotated[
        list[str] | None, typer.Option("--without", help="Package that the image has; may be repeated, or a list with commas.")
    ] = None,
    size_limit: Annotated[
        int | None, typer.Option("--size-limit", min=1, help="Most MiB the archive may have; by default what the target takes.")
    ] = None,
    check: Annotated[bool, typer.Option("--check", help="Only tell what would be built; install and write nothing.")] = False,
    json: Json = False,
) -> None:
    """Make the archive of a project's @remote functions: handlers, manifest and dependencies."""
    from flamepy.build.project import build_project

    excluded, left_out = _listed(exclude), _listed(without)
    limit = None if size_limit is None else size_limit << 20
    chosen: dict[str, Any] = {"exclude": excluded, "python": python, "platform": platform, "target": target, "without": left_out}
    if check:
        _check(project, {**chosen, "size_limit": limit}, json)
        return
    with errors(), _problems_as_json(json), _terminated_like_interrupted():
        report = build_project(
            project,
            output=output,
            no_deps=no_deps,
            keep_build=keep_build,
            progress=_progress,
            size_limit=limit,
            **chosen,
        )
        as_json(report.to_json()) if json else _show(report)


def _listed(given: list[str] | None) -> list[str]:
    return [name.strip() for names in given or () for name in names.split(",") if name.strip()]


def _check(project: Path, chosen: dict[str, Any], json: bool) -> None:
    from flamepy.build.archive import human_size
    from flamepy.build.project import check_project

    with errors(), _problems_as_json(json), _terminated_like_interrupted():
        report = check_project(project, **chosen)
    if json:
        as_json(report.to_json())
        return
    _resources(report.manifest)
    for note in report.notes:
        typer.echo(f"note: {note}")
    size = "of a size that cannot be told" if report.download is None else f"{human_size(report.download)} to download"
    typer.echo(f"\n{len(report.dependencies)} requirements, {size}; nothing was installed or written")


def _progress(step: str) -> None:
    typer.echo(f"  {step}", err=True)


def _resources(manifest: Mapping[str, Any]) -> None:
    rows = [
        (name, about["resource_type"], about["handler_file"], ", ".join(function["name"] for function in about["functions"]))
        for name, about in manifest["resources"].items()
    ]
    table(("resource", "type", "handler", "functions"), rows)
    routes = [
        (f"{route}", name, function) for name, answered in (manifest.get("routes") or {}).items() for route, function in answered.items()
    ]
    if routes:
        typer.echo()
        table(("route", "resource", "function"), routes)


def _show(report: BuildReport) -> None:
    from flamepy.build.archive import human_size, largest

    _resources(report.manifest)
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
def deploy(
    project: Project = Path("."),
    to: Annotated[str, typer.Option("--to", help="Deployer; flame plugins lists them.")] = "directory",
    name: Annotated[str, typer.Option("--name", help="Of the application; by default that of the directory.")] = "",
    option: Annotated[list[str] | None, typer.Option("--option", help="key=value for the deployer; may be repeated.")] = None,
    target: Annotated[str, typer.Option("--target", help="Kind of workers: runpod, here.")] = "here",
    json: Json = False,
) -> None:
    """Build a project, and bring it to where it is served."""
    from flamepy.deploy.release import deploy_project

    with errors(), _problems_as_json(json), _terminated_like_interrupted():
        endpoints = deploy_project(project, to=to, name=name, options=_pairs(option), target=target, progress=_progress)
    if json:
        as_json({"endpoints": endpoints})
    else:
        table(("resource", "url"), list(endpoints.items()))


def _pairs(given: list[str] | None) -> dict[str, str]:
    pairs = [text.partition("=") for text in given or ()]
    wrong = next((key for key, equals, _ in pairs if not equals or not key), None)
    if wrong is not None:
        raise typer.BadParameter(f"write  key=value, not {wrong!r}", param_hint="--option")
    return {key: value for key, _, value in pairs}


@app.command()
def undeploy(project: Project = Path("."), json: Json = False) -> None:
    """Take down what `flame deploy` serves of a project, and remove what builds have made in it."""
    from flamepy.build.project import clean_project
    from flamepy.deploy.release import undeploy_project

    with errors():
        ended = undeploy_project(project)
        removed = [str(path) for path in clean_project(project)]
    if json:
        as_json({"ended": ended, "removed": removed})
        return
    for what in ended:
        typer.echo(f"ended {what}")
    for path in removed:
        typer.echo(f"removed {path}")
    if not removed and not ended:
        typer.echo("nothing to remove")


@app.command()
def dev(
    project: Project = Path("."),
    host: Annotated[str, typer.Option("--host", help="Address to listen at; whoever reaches it can run code here.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8888,
    reload: Annotated[bool, typer.Option("--reload/--no-reload", help="Serve anew what changes.")] = True,
) -> None:
    """Serve a project's functions and routes from this machine, and anew after every change."""
    from flame_host.api import ConfigError
    from flamepy.build.dev import DevServer

    with errors(), _terminated_like_interrupted():
        try:
            server = DevServer(project, host=host, port=port, say=_progress, reload=reload)
        except (OSError, OverflowError) as error:
            if isinstance(error, FlameError):
                raise
            raise ConfigError(f"cannot listen at {host}:{port}: {error}", hint="choose another with --port, or 0 for a free one") from error
        try:
            _resources(server.server.manifest)
            typer.echo(f"\nopen {server.url} in a browser; Ctrl-C ends it")
            sys.stdout.flush()
            server.wait()
        except KeyboardInterrupt:
            typer.echo("stopping", err=True)
        finally:
            server.close()


@app.command()
def init(
    project: Annotated[Path, typer.Argument(file_okay=False, help="Directory to make it in; made if it is not there.")] = Path("."),
    force: Annotated[bool, typer.Option("--force", help="Write over files that are there.")] = False,
) -> None:
    """Make a project to begin with: a function, a class and a route."""
    from flamepy.build.beginning import begin

    with errors():
        for path in begin(project, force=force):
            typer.echo(f"wrote {path}")
    typer.echo(f"\ntry it:  flame dev {project}")


def serve_handler(
    archive: Annotated[Path, typer.Argument(help="What flame build made.")],
    host: Annotated[str, typer.Option("--host", help="Address to listen at; whoever reaches it can run code here.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", help="0 takes a free one.")] = 8888,
    json: Json = False,
) -> None:
    """Serve a built archive over HTTP until interrupted. With JSON, one line says where, once it listens."""
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
        return HandlerServer(archive, host=host, port=port)
    except (OSError, OverflowError) as error:
        if isinstance(error, FlameError):
            raise
        raise ConfigError(f"cannot listen at {host}:{port}: {error}", hint="choose another with --port, or 0 for a free one") from error


def _announce(server: Any, json: bool) -> None:
    resources = {name: server.url_of(name) for name in server.manifest["resources"]}
    if json:
        import json as encoder

        typer.echo(encoder.dumps({"url": server.url, "resources": resources}))  # on one line, for whoever waits for it
    else:
        typer.echo(f"serving {server.url}  (POST /runsync, POST /run, GET /status/<id>; Ctrl-C ends it)")
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
