"""``flame-host``: the operator's command. What concerns a user's machine has its home in ``flame``, which the client brings;
on a node without the client the same commands answer here, unlisted.
"""

from __future__ import annotations

import platform
import sys
from typing import Annotated

import typer

from flame_host._version import __version__
from flame_host.api import API_VERSION
from flame_host.cli import doctor as doctor_checks
from flame_host.cli import env, output, plugins, server

app = typer.Typer(
    name="flame-host",
    help="The executor host, for operators of nodes.",
    epilog="`doctor`, `plugins` and `env` are commands of `flame`; on a node without the client they work here, too.",
    **output.STYLE,
)
app.add_typer(plugins.app, name="plugins", hidden=True)
app.add_typer(env.app, name="env", hidden=True)


def main() -> None:
    """Entry point."""
    output.run(app, "flame-host")


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"flame-host {__version__} (plugin API {API_VERSION}, Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    plugin: Annotated[list[str] | None, typer.Option("-p", metavar="no:NAME", help="Do not import a plugin; may be given again.")] = None,
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")] = False,
) -> None:
    context.obj = plugins.blocked_plugins(plugin or ())


@app.command(hidden=True)
def doctor(context: typer.Context, json: plugins.Json = False) -> None:
    """Check what a host needs; status 1 when something of it is missing, with the fix."""
    doctor_checks.show(list(doctor_checks.host_checks(plugins.host(context))), json)


app.command()(server.serve)
app.command()(server.status)


@app.command()
def template(
    name: Annotated[str, typer.Option(help="Name to register the host under.")] = "flame-host",
    python: Annotated[str, typer.Option(help="The interpreter flame-host is installed for, as the nodes see it.")] = sys.executable,
    env: Annotated[list[str] | None, typer.Option(help="KEY=VALUE for the host's processes; may be repeated.")] = None,
    max_instances: Annotated[int, typer.Option(help="Most executors of a session.", min=1)] = 1_000_000,
    delay_release: Annotated[int, typer.Option(help="Seconds an idle executor is kept.", min=0)] = 60,
) -> None:
    """Print the registration of this host for a Flame cluster."""
    from flame_host.cli.template import print_template

    print_template(name, python, env or [], max_instances, delay_release)
