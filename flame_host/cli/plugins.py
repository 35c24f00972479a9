"""``flame plugins``: what is installed, what of it is active, why not the rest, and what a project would get."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer

from flame_host import Host
from flame_host._plugins.loading import Status
from flame_host.api import ConfigError, Plan, Want, Wants, negotiate
from flame_host.api.negotiation import FAMILIES
from flame_host.cli.output import FAILED, STYLE, print_json, table

WORTH_A_WARNING = (Status.FAILED, Status.INCOMPATIBLE, Status.SHADOWED)

app = typer.Typer(
    help="What is installed, what of it is active, and why not the rest.",
    invoke_without_command=True,
    **{**STYLE, "no_args_is_help": False},
)
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def host(context: typer.Context) -> Host:
    """Without the plugins that the command was told to leave out."""
    blocked: tuple[str, ...] = context.obj or ()
    return Host(no_plugins=(*Host().settings.no_plugins, *blocked)) if blocked else Host()


@app.callback()
def plugins(context: typer.Context, json: Json = False) -> None:
    """Every plugin found, with its state and the reason for it; status 1 when one is broken."""
    if context.invoked_subcommand is not None:
        return
    records = host(context).catalog.records
    if json:
        print_json({"plugins": [{**asdict(record), "status": record.status.value} for record in records]})
    else:
        rows = [
            (record.name, record.distribution, record.version, record.status.value, record.reason or ", ".join(record.offers))
            for record in records
        ]
        table(("PLUGIN", "DISTRIBUTION", "VERSION", "STATUS", "OFFERS"), rows)
    if any(record.status in WORTH_A_WARNING for record in records):
        raise typer.Exit(FAILED)


@app.command()
def explain(context: typer.Context, project: Annotated[Path, typer.Argument(help="Its directory.")] = Path(), json: Json = False) -> None:
    """Which plugins a project would get here, by what its pyproject.toml asks for."""
    wants, policy = _wants(project)
    asked = host(context)
    capabilities = asked.capabilities()
    plan = negotiate(wants, capabilities, capabilities, {**policy, **asked.settings.policy})
    if json:
        print_json({"plan": asdict(plan)})
        return
    rows = [(family, _chosen(plan, family), ", ".join(wants.of(family).names), wants.of(family).origin) for family in FAMILIES]
    table(("FAMILY", "CHOSEN", "WANTED", "BECAUSE OF"), rows)


def _chosen(plan: Plan, family: str) -> str:
    return ", ".join(plan.serializers) if family == "serializers" else str(getattr(plan, family[:-1]))


def _wants(project: Path) -> tuple[Wants, dict[str, str]]:
    """The lists and the policy of ``[tool.flame]``. All other layers are the client's to read."""
    from flame_host._packages.project import read_toml

    path = project / "pyproject.toml"
    if not project.is_dir():
        raise ConfigError(f"{project} is no directory")
    section: dict[str, Any] = read_toml(path).get("tool", {}).get("flame", {}) if path.is_file() else {}
    families = {}
    for family in FAMILIES:
        value = section.get(family)
        if value is None:
            continue
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise ConfigError(f"{path}: [tool.flame] {family} is {value!r}", hint=f'write  {family} = ["name"]')
        families[family] = Want(tuple(names), f"{path} [tool.flame] {family}")
    return Wants(families), dict(section.get("policy", {}))


def blocked_plugins(texts: Sequence[str]) -> tuple[str, ...]:
    """What ``-p no:NAME``, given some times, leaves out."""
    for text in texts:
        if not text.startswith("no:") or text == "no:":
            raise ConfigError(f"-p {text}: only  -p no:NAME  is known", hint="`flame plugins` shows the names")
    return tuple(text.removeprefix("no:") for text in texts)
