"""``flmctl``: applications and sessions, with the verbs of Flame's own tool.

Installed as a command only by ``flame-host-sdk[flmctl]``: the name is that of Flame's own, which it must not take the place of unasked.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from flame_host.api import ApplicationNotFoundError, ConfigError
from flamepy.cli.output import STYLE, as_json, errors, run, table, timestamp

app = typer.Typer(name="flmctl", help="Look at applications and sessions of an engine, and change them.", **STYLE)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]

_EMBEDDED = (
    "sessions of an embedded engine live in the program that made them; name a cluster in flame.yaml or FLAME_ENDPOINT to see its own"
)


def _connection() -> Any:
    from flamepy._client import default_client

    return default_client().connection


def _embedded(connection: Any) -> bool:
    return not connection.capabilities().outlives_client


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
        as_json({"applications" if applications else "sessions": [_metadata(entry) for entry in entries]})
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
            raise ApplicationNotFoundError(f"application {application!r} is not registered", hint="`flmctl list -a` shows those that are")
    metadata = _metadata(found)
    if json:
        as_json({"application" if application else "session": metadata})
        return
    for name, value in metadata.items():
        typer.echo(f"{name.replace('_', ' ') + ':':<18} {value}")


@app.command()
def register(
    file: Annotated[Path, typer.Option("--file", "-f", help="YAML as Flame has it: metadata and spec; several with ---.")],
) -> None:
    """Register the applications of a file."""
    with errors():
        for name, spec in _specifications(file):
            _register(name, spec)
            typer.echo(f"registered {name}")


@app.command()
def update(file: Annotated[Path, typer.Option("--file", "-f", help="As for register.")]) -> None:
    """Replace the applications of a file that are registered."""
    from flamepy.core import unregister_application

    with errors():
        for name, spec in _specifications(file):
            unregister_application(name)
            _register(name, spec)
            typer.echo(f"updated {name}")


@app.command()
def unregister(application: Annotated[str, typer.Option("--application", "-a", help="The application to forget.")]) -> None:
    """Unregister an application."""
    from flamepy.core import unregister_application

    with errors():
        unregister_application(application)
    typer.echo(f"unregistered {application}")


def _register(name: str, spec: Mapping[str, Any]) -> None:
    from flamepy.core import register_application

    attributes = dict(spec)
    if str(attributes.pop("shim", "Host")).lower() != "host":
        raise ConfigError(
            f"application {name}: shim {spec['shim']!r} is not served by this client", hint="leave it out, or write  shim: Host"
        )
    try:
        register_application(name, attributes)
    except TypeError as error:
        unknown = str(error).rpartition(" argument ")[2]
        raise ConfigError(f"application {name}: unknown key {unknown} in spec", hint="`flame-host template` prints one") from error


def _specifications(file: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    import yaml

    try:
        documents = list(yaml.safe_load_all(file.read_text()))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise ConfigError(f"{file}: {error}") from error
    for document in documents:
        try:
            yield document["metadata"]["name"], document["spec"]
        except (TypeError, KeyError) as error:
            raise ConfigError(f"{file}: a document without {error}", hint="each needs  metadata: {name: …}  and  spec: {…}") from None


def _metadata(entry: Any) -> dict[str, Any]:
    """With times that say their zone, and states by name."""
    metadata = dataclasses.asdict(entry)
    for name, value in metadata.items():
        if name.endswith("_time"):
            metadata[name] = timestamp(value)
        elif isinstance(value, Enum):
            metadata[name] = value.name.title()
    return metadata


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
    """Entry point."""
    run(app, "flmctl")


if __name__ == "__main__":
    main()
