"""``flame-host``: what this host can do, what it keeps, and what is wrong with it."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import typer

from flame_host import Host, __version__
from flame_host._plugins.loading import Status
from flame_host.api import API_VERSION, ConfigError, FlameError, Plan, Want, Wants, negotiate
from flame_host.api.negotiation import FAMILIES
from flame_host.cli import env as env_commands

FAILED, USAGE = 1, 2
"""Exit codes: something is not as it should be; something was asked for wrongly."""

_JSON = typer.Option(False, "--json", help="Machine-readable.")
_WORTH_A_WARNING = (Status.FAILED, Status.INCOMPATIBLE, Status.SHADOWED)

app = typer.Typer(help="The executor host.", no_args_is_help=True, add_completion=False)
plugins_app = typer.Typer(help="What is installed, what of it is active, and why not the rest.", invoke_without_command=True)
app.add_typer(plugins_app, name="plugins")
app.add_typer(env_commands.app, name="env")


def main() -> None:
    """Entry point: runs, prints errors as text, and exits with 0, 1 (it failed) or 2 (it was asked wrongly)."""
    if os.environ.get("NO_COLOR"):
        os.environ["_TYPER_FORCE_DISABLE_TERMINAL"] = "1"
    _mount_template()
    try:
        app(prog_name="flame-host")
    except FlameError as error:
        sys.stderr.write(f"flame-host: {error}\n")
        sys.exit(USAGE if isinstance(error, ConfigError) else FAILED)
    except BrokenPipeError:  # `flame-host … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(FAILED)


def _mount_template() -> None:
    """``flame-host template``, when the extra it needs is installed."""
    try:
        from flame_host.cli.template import template
    except ImportError:
        return
    app.command("template")(template)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"flame-host {__version__} (plugin API {API_VERSION}, Python {platform.python_version()})")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    plugin: list[str] = typer.Option([], "-p", metavar="no:NAME", help="Do not import a plugin; may be given again."),  # noqa: B008
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Say the version."),
) -> None:
    """The executor host."""
    blocked = []
    for text in plugin:
        if not text.startswith("no:") or text == "no:":
            raise ConfigError(f"-p {text}: only  -p no:NAME  is known", hint="`flame-host plugins` shows the names")
        blocked.append(text.removeprefix("no:"))
    context.obj = tuple(blocked)


def _host(context: typer.Context) -> Host:
    blocked: tuple[str, ...] = context.obj or ()
    if not blocked:
        return Host()
    return Host(no_plugins=(*Host().settings.no_plugins, *blocked))


@plugins_app.callback()
def plugins(context: typer.Context, as_json: bool = _JSON) -> None:
    """Every plugin found, with its state and the reason for it."""
    if context.invoked_subcommand is not None:
        return
    records = _host(context).catalog.records
    if as_json:
        _print_json([{**asdict(record), "status": record.status.value} for record in records])
    else:
        rows = [
            (record.name, record.distribution, record.version, record.status.value, record.reason, ", ".join(record.offers))
            for record in records
        ]
        env_commands.print_table(("NAME", "DISTRIBUTION", "VERSION", "STATUS", "REASON", "OFFERS"), rows)
    if any(record.status in _WORTH_A_WARNING for record in records):
        raise typer.Exit(FAILED)


@plugins_app.command()
def explain(context: typer.Context, project: Path = typer.Argument(Path(), help="Its directory."), as_json: bool = _JSON) -> None:  # noqa: B008
    """Which plugins a project would get on this host, by what its pyproject.toml asks for."""
    wants, policy = _wants(project)
    host = _host(context)
    capabilities = host.capabilities()
    plan = negotiate(wants, capabilities, capabilities, {**policy, **host.settings.policy})
    if as_json:
        _print_json(asdict(plan))
        return
    rows = [(family, _chosen(plan, family), ", ".join(wants.of(family).names), wants.of(family).origin) for family in FAMILIES]
    env_commands.print_table(("FAMILY", "CHOSEN", "WANTED", "BECAUSE OF"), rows)


def _chosen(plan: Plan, family: str) -> str:
    return ", ".join(plan.serializers) if family == "serializers" else str(getattr(plan, family[:-1]))


def _wants(project: Path) -> tuple[Wants, dict[str, str]]:
    """The lists and the policy of ``[tool.flame]``. All other layers are the client's to read: see ``flame explain``."""
    from flame_host._packages.reading import read_toml
    from flame_host._packages.tables import at

    path = project / "pyproject.toml"
    if not project.is_dir():
        raise ConfigError(f"{project} is no directory")
    table = at(read_toml(path), "tool", "flame") if path.is_file() else {}
    families = {}
    for family in FAMILIES:
        value = table.get(family)
        if value is None:
            continue
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path}: [tool.flame] {family} is {value!r}", hint=f'write  {family} = ["name"]')
        families[family] = Want(tuple(names), f"{path} [tool.flame] {family}")
    return Wants(families), dict(table.get("policy", {}))


@app.command()
def doctor(context: typer.Context, as_json: bool = _JSON) -> None:
    """Check what a host needs; exits with 1 when something of it is missing."""
    checks = list(_checks(_host(context)))
    if as_json:
        _print_json([{"check": name, "ok": fine, "detail": text} for name, fine, text in checks])
    else:
        for name, fine, text in checks:
            print(f"{'ok  ' if fine else 'FAIL'} {name}: {text}")
    if not all(fine for _, fine, _ in checks):
        raise typer.Exit(FAILED)


def _checks(host: Host) -> Iterator[tuple[str, bool, str]]:
    """Name, whether it is fine, and what was found."""
    yield "python", sys.version_info >= (3, 10), f"{platform.python_version()} at {sys.executable}"
    root = host.root
    try:
        with tempfile.TemporaryFile(dir=root):
            pass
        free = shutil.disk_usage(root).free
        yield "root", free > 1 << 30, f"{root}, {free / (1 << 30):.1f} GiB free"
    except OSError as error:
        yield "root", False, f"{root}: {error.strerror}"
    status = root.stat()
    private = status.st_uid == os.getuid() and not status.st_mode & 0o022
    yield "root is private", private, "only you can write to it" if private else f"others can write to it; run  chmod 700 {root}"
    for record in host.catalog.records:
        if record.status in _WORTH_A_WARNING:
            yield f"plugin {record.name}", False, f"{record.status.value}: {record.reason}"
    for family in (*FAMILIES, "engines"):
        names = ", ".join(host.catalog.all(family))
        yield family, bool(names), names or "none; install a plugin that offers one"
    for name, installer in host.catalog.all("installers").items():
        try:
            yield f"installer {name}", True, installer.identity()
        except FlameError as error:
            yield f"installer {name}", False, str(error)
    yield _shared_memory()


def _shared_memory() -> tuple[str, bool, str]:
    try:
        os.close(os.memfd_create("flame-doctor"))
    except (OSError, AttributeError) as error:
        return "shared memory", False, f"memfd_create: {error}; large results need Linux 3.17 or later"
    return "shared memory", True, "anonymous, nothing stays in /dev/shm"


def _print_json(value: Any) -> None:
    json.dump(value, sys.stdout, indent=2, default=str)
    print()
