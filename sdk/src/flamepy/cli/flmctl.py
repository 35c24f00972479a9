"""``flmctl``: applications and sessions, as Flame's own tool shows them."""

from __future__ import annotations

import dataclasses
import time
from typing import Annotated, Any

import typer

from flamepy.cli.output import as_json, errors, table

app = typer.Typer(
    name="flmctl", help="Look at applications and sessions of an engine.", no_args_is_help=True, pretty_exceptions_enable=False,
    rich_markup_mode=None,
)  # fmt: skip
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_EMBEDDED = (
    "sessions of an embedded engine live in the program that made them; name a cluster in flame.yaml or FLAME_ENDPOINT to see its own"
)


def _connection() -> Any:
    from flamepy._client import default_client

    return default_client().connection


def _embedded(connection: Any) -> bool:
    return str(connection.endpoint).partition(":")[0] in ("local", "inline")


@app.command("list")
def list_(
    applications: Annotated[bool, typer.Option("--application", "-a", help="Applications.")] = False,
    sessions: Annotated[bool, typer.Option("--session", "-s", help="Sessions.")] = False,
    json: Json = False,
) -> None:
    """List applications (-a) or sessions (-s)."""
    if applications == sessions:
        typer.echo("say what to list: -a (applications) or -s (sessions)", err=True)
        raise typer.Exit(2)
    with errors():
        connection = _connection()
        entries = list(connection.list_applications() if applications else connection.list_sessions())
    if json:
        as_json([dataclasses.asdict(entry) for entry in entries])
    elif applications:
        table(("Name", "State", "Tags", "Created", "Shim", "Command"), [_application_row(entry) for entry in entries])
    else:
        columns = ("ID", "App", "State", "Pending", "Running", "Succeed", "Failed", "Created")
        rows = [
            (
                one.session_id,
                one.application,
                one.state.name.title(),
                one.pending,
                one.running,
                one.succeeded,
                one.failed,
                _clock(one.creation_time),
            )
            for one in entries
        ]
        table(columns, rows)
    if sessions and _embedded(connection):
        typer.echo(_EMBEDDED, err=True)


@app.command()
def view(
    application: Annotated[str, typer.Option("--application", "-a", help="An application.")] = "",
    session: Annotated[str, typer.Option("--session", "-s", help="A session.")] = "",
    json: Json = False,
) -> None:
    """Show one application or session."""
    if bool(application) == bool(session):
        typer.echo("say what to view: -a NAME or -s ID", err=True)
        raise typer.Exit(2)
    with errors():
        connection = _connection()
        found = connection.get_application(application) if application else connection.get_session(session)
    if found is None:
        typer.echo(f"error: application {application!r} is not registered", err=True)
        raise typer.Exit(1)
    facts = dataclasses.asdict(found)
    if json:
        as_json(facts)
        return
    for name, value in facts.items():
        typer.echo(f"{name.replace('_', ' ') + ':':<18} {value.name.title() if hasattr(value, 'name') else value}")


@app.command()
def close(session: Annotated[str, typer.Option("--session", "-s", help="The session to close.")]) -> None:
    """Close a session."""
    with errors():
        connection = _connection()
        if _embedded(connection):
            typer.echo(f"note: {_EMBEDDED}", err=True)
        connection.close_session(session)


def _application_row(application: Any) -> tuple[str, ...]:
    return (
        application.name,
        application.state.name.title(),
        ",".join(application.labels),
        _clock(application.creation_time),
        application.shim.name.title(),
        application.command or "-",
    )


def _clock(when: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(when)) if when else "-"


def main() -> None:
    app()
