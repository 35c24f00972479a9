"""What a package may list, judged before it is made by the rules that hold when it is unpacked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flame_host._packages.unpack.names import check_name, fold
from flame_host.api import ArchiveError, Limits, PackageError

_OUT = "or leave it out: [tool.flame] exclude"


def check_listing(files: Iterable[str], links: Mapping[str, str], limits: Limits) -> None:
    """Refuse what the host would refuse.

    Raises:
        PackageError: names the file.
    """
    taken: dict[str, str] = {}
    directories = {""}
    plain: set[str] = set()
    for name in files:
        shown = name if name.isprintable() else ascii(name)
        try:
            check_name(name, limits.name_bytes)
        except ArchiveError as error:
            raise PackageError(f"{shown} cannot be packed: {error.message}", hint=f"rename it, {_OUT}") from error
        if name.count("/") >= limits.depth:
            raise PackageError(f"{shown} is more than {limits.depth} directories deep", hint=f"move it up, {_OUT}")
        other = taken.setdefault(fold(name), name)
        if other != name:
            raise PackageError(f"{shown} and {other} are one name on some file systems", hint=f"rename one, {_OUT}")
        parent = name.rpartition("/")[0]
        while parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
        plain.add(name)
    if len(plain) + len(directories) > limits.members:
        raise PackageError(
            f"{len(plain)} files are more than the {limits.members} of a package", hint="leave data out: [tool.flame] exclude"
        )
    for name, target in links.items():
        _check_link(name, target, directories, plain, links)


def _check_link(name: str, target: str, directories: set[str], plain: set[str], links: Mapping[str, str]) -> None:
    steps = name.split("/")[:-1]
    for component in target.rstrip("/").split("/"):
        through = "/".join(steps)
        if through in links:
            raise PackageError(f"the link {name} to {target} leads through another link", hint=f"link to the place itself, {_OUT}")
        if through not in directories:
            raise _leads_nowhere(name, "/".join((*steps, component)))
        if component == "..":
            steps = steps[:-1]
        elif component != ".":
            steps.append(component)
    reached = "/".join(steps)
    if reached not in directories and reached not in plain:
        raise _leads_nowhere(name, reached)


def _leads_nowhere(name: str, place: str) -> PackageError:
    return PackageError(
        f"the link {name} leads to {place}, which is not in the package: it is left out by an ignore file, or an empty directory",
        hint=f"take that in with [tool.flame] include, {_OUT}",
    )
