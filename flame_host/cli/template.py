"""``flame-host template``: the registration that makes this host an application of a Flame cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import typer

from flame_host import Host
from flame_host.api import Capabilities
from flame_host.wire.convert import CAPABILITIES_VARIABLE, capabilities_to_text

_HEAD = """\
# Register it:       flmctl register -f flame-host.yaml
# Run programs on it: set  runner: {{template: {name}}}  in flame.yaml, or open sessions of {name}.
# No installer is named, so that packages are left to the host; with one, the cluster would install them over the host's own modules.
#
# What this host can do:
"""


def registration(
    capabilities: Capabilities, *, name: str, python: Path, environments: Mapping[str, str], max_instances: int, delay_release: int
) -> dict[str, Any]:
    """The registration as ``flmctl register`` takes it.

    Args:
        python: as the nodes see it. delay_release: seconds an idle executor is kept.
    """
    return {
        "metadata": {"name": name},
        "spec": {
            "shim": "Host",
            "description": "An executor host for Python whose every format is a plugin.",
            "command": str(python),
            "arguments": ["-m", "flame_host"],
            "environments": {**environments, CAPABILITIES_VARIABLE: capabilities_to_text(capabilities)},
            "max_instances": max_instances,
            "delay_release": delay_release,
        },
    }


def render(facts: Mapping[str, Any], capabilities: Capabilities) -> str:
    """YAML, with what people want to know on top as comments."""
    import yaml

    lines = [
        f"#   {family:<12} {', '.join(offer.name for offer in offers) or '(none)'}" for family, offers in capabilities.families.items()
    ]
    lines.append(f"#   {'python':<12} {capabilities.python} on {capabilities.platform}")
    head = _HEAD.format(name=facts["metadata"]["name"]) + "\n".join(lines) + "\n"
    return head + yaml.safe_dump(dict(facts), sort_keys=False, allow_unicode=True, width=1 << 20)


def print_template(name: str, python: str, variables: Sequence[str], max_instances: int, delay_release: int) -> None:
    """``flame-host template``."""
    pairs = [entry.partition("=") for entry in variables]
    for key, separator, _ in pairs:
        if not key or not separator:
            raise typer.BadParameter(f"{key!r} is not KEY=VALUE", param_hint="--env")
    capabilities = Host().capabilities()
    facts = registration(
        capabilities,
        name=name,
        python=Path(python),
        environments={key: value for key, _, value in pairs},
        max_instances=max_instances,
        delay_release=delay_release,
    )
    typer.echo(render(facts, capabilities), nl=False)
