"""What names a package, and what names an environment: digests of all that decides what is in it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flame_host._packages.inputs import content_digest, named_paths
from flame_host._packages.project import Project
from flame_host.api import DigestMismatchError, PackageRef


def by_its_fragment(package: PackageRef) -> PackageRef:
    """``https://…/x.whl?token=…#sha256=…``: the digest that is asked for, and a URL that a store can fetch."""
    url, _, fragment = package.url.partition("#")
    match = re.search(r"(?:^|&)sha256=([0-9a-fA-F]{64})(?:&|$)", fragment)
    if match is None:
        return replace(package, url=url) if fragment else package
    asked = match[1].lower()
    if package.digest and package.digest != asked:
        raise DigestMismatchError(
            f"the package {url} is said to have SHA-256 {package.digest}, and {asked} is asked for", hint="correct #sha256="
        )
    return replace(package, url=url, digest=asked)


def digest_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def key_of(**parts: object) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def digest_of_outside(project: Project, extra: Sequence[str], base: Path) -> str:
    """Of files and directories that are named by their absolute path, or by the application itself: looked at anew each time."""
    named = [Path(path) for path in project.outside]
    for requirement in (*project.requirements.dependencies, *extra):
        named += named_paths(requirement, base)
    return content_digest(named, base) if named else ""
