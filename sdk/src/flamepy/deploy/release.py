"""From a project to what serves it, and back."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flame_host.api import Release
from flamepy._package.project import checked_root
from flamepy.build.project import build_project
from flamepy.build.record import ARTEFACTS

__all__ = ["deploy_project", "token_file", "undeploy_project"]

_RECORD = "deployed.json"


def deploy_project(
    project: str | Path = ".",
    *,
    to: str = "directory",
    name: str = "",
    options: Mapping[str, str] | None = None,
    target: str = "here",
    progress: Callable[[str], None] | None = None,
) -> dict[str, str]:
    """Build it and have it served; returns resource → URL.

    Args:
        to: name of a deployer. name: of the application, by default the directory's. options: for the deployer.

    Raises:
        FlameError: of the build, or of the deployer. What was served before still is.
    """
    from flame_host import Host

    root = checked_root(project)
    deployer = Host().catalog.deployer(to)  # before anything is built for it
    application = name or re.sub(r"[^A-Za-z0-9._-]", "-", root.name).lstrip("._-") or "app"
    report = build_project(root, target=target, progress=progress)
    if progress is not None:
        progress(f"deploying to {to} as {application}")
    given = dict(options or {})
    before = _records(root)
    # First, so that what is killed half way can be undeployed.
    _remember(root, {"to": to, "application": application, "options": given})
    try:
        return dict(deployer.deploy(Release(application, report.archive, report.digest, report.manifest, given)))
    except BaseException:
        _write(root, before)
        raise


def undeploy_project(project: str | Path = ".") -> list[str]:
    """End all that was deployed from it; returns what that was."""
    from flame_host import Host

    root = checked_root(project)
    records = _records(root)
    if not records:
        return []
    catalog = Host().catalog
    ended = [
        f"{record['application']} at {record['to']}"
        for record in records
        if catalog.deployer(record["to"]).undeploy(record["application"], record["options"])
    ]
    (root / ARTEFACTS / _RECORD).unlink()
    return ended


def token_file(project: str | Path) -> Path | None:
    """Where the token stands that requests to what was deployed last have to show; None where the deployer has its own ways."""
    from flamepy.deploy.directory import Place

    records = _records(checked_root(project))
    if not records or records[-1]["to"] != "directory":
        return None
    return Place(records[-1]["application"], records[-1]["options"]).token_file


def _records(root: Path) -> list[dict[str, Any]]:
    path = root / ARTEFACTS / _RECORD
    records: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    return records


def _remember(root: Path, record: dict[str, Any]) -> None:
    same = (record["to"], record["application"], record["options"].get("path"))
    others = [each for each in _records(root) if (each["to"], each["application"], each["options"].get("path")) != same]
    _write(root, [*others, record])


def _write(root: Path, records: list[dict[str, Any]]) -> None:
    path = root / ARTEFACTS / _RECORD
    if records:
        path.write_text(json.dumps(records, indent=2) + "\n", encoding="utf-8")
    else:
        path.unlink(missing_ok=True)
