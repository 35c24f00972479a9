"""Where the modules of a project that was built are imported from.

A project of Python alone runs from its tree, with all that stands beside its modules, as an editable installation does in the checkout;
its metadata is what was built. One that was compiled runs from where it was installed, and its tree comes behind.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

from flame_host._packages.declared import Declaration


def put_on_path(environment: Path, root: Path) -> list[str]:
    """The directories that go in front; those that go behind are written down in the environment."""
    if not any((root / name).is_file() for name in ("pyproject.toml", "setup.py", "setup.cfg")) or (root / "PKG-INFO").is_file():
        return []  # a wheel or a source distribution, and no checkout
    sources = [str(root / name) for name in dict.fromkeys((*Declaration.of(root).source_directories, ".")) if (root / name).is_dir()]
    for packages in environment.glob("lib/python*/site-packages"):
        files = list(_installed_from_here(packages, environment, root))
        modules = [name for name in files if name.endswith(".py")]
        compiled = any(name.endswith((".so", ".pyd")) for name in files)
        if modules and not compiled and all(any(_same(packages / name, Path(source, name)) for source in sources) for name in modules):
            return sources
        (packages / "flame-project.pth").write_text("\n".join(sources) + "\n")
    return []


def _installed_from_here(packages: Path, environment: Path, root: Path) -> Iterator[str]:
    """The files of the distribution that was built, which says that it came from a directory."""
    for info in packages.glob("*.dist-info"):
        try:
            origin = json.loads((info / "direct_url.json").read_text())
            record = (info / "RECORD").read_text(encoding="utf-8")
        except (OSError, ValueError):
            continue
        copy = environment.with_name(f".{environment.name}.source")
        place = Path(unquote(str(origin.get("url", "")).removeprefix("file://")))
        # A neighbour that it was installed with came from another directory of the same copy.
        if (
            place.is_relative_to(copy)
            and root.parts[len(root.parts) - len(place.relative_to(copy).parts) :] == place.relative_to(copy).parts
        ):
            yield from (row[0] for row in csv.reader(record.splitlines()) if row)


def _same(one: Path, other: Path) -> bool:
    try:
        return one.read_bytes() == other.read_bytes()
    except OSError:
        return False
