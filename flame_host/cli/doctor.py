"""What a host needs of its machine, checked one by one."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial

import typer

from flame_host import Host
from flame_host._version import __version__
from flame_host.api import FlameError, Installer
from flame_host.api.negotiation import FAMILIES
from flame_host.cli.output import FAILED, print_json
from flame_host.cli.plugins import WORTH_A_WARNING


@dataclass(frozen=True)
class Check:
    """Attributes:
    fix: what to do about it, when it is not ok.
    """

    name: str
    ok: bool
    detail: str
    fix: str = ""


def guarded(name: str, check: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """A check that fails to run is a failed check, and stops no other."""
    try:
        yield from check()
    except FlameError as error:
        yield Check(name, False, error.message, error.hint)
    except Exception as error:
        yield Check(name, False, f"{type(error).__name__}: {error}")


def host_checks(host: Host) -> Iterator[Check]:
    yield Check("version", True, f"flame-host {__version__}")
    yield Check("python", sys.version_info >= (3, 10), f"{platform.python_version()} at {sys.executable}", "install Python 3.10 or newer")
    yield Check("cores", True, f"{len(os.sched_getaffinity(0))} for workers")
    yield from guarded("directory", lambda: _directory(host))
    for record in host.catalog.records:
        if record.status in WORTH_A_WARNING:
            fix = f"reinstall or uninstall {record.distribution}"
            yield Check(f"plugin {record.name}", False, f"{record.status.value}: {record.reason}", fix)
    for family in (*FAMILIES, "engines"):
        names = ", ".join(host.catalog.all(family))
        yield Check(family, bool(names), names or "none", 'pip install "flame-host-sdk" brings one of each')
    for name, installer in host.catalog.all("installers").items():
        yield from guarded(f"installer {name}", partial(_installer, name, installer))
    yield _shared_memory()


def _directory(host: Host) -> Iterator[Check]:
    root = host.root
    with tempfile.TemporaryFile(dir=root):
        pass
    free = shutil.disk_usage(root).free
    fix = "free some room (`flame env prune`), or set FLAME_HOST_ROOT to another disk"
    yield Check("directory", free > 1 << 30, f"{root}, {free / (1 << 30):.1f} GiB free", fix)
    status = root.stat()
    private = status.st_uid == os.getuid() and not status.st_mode & 0o022
    yield Check("private", private, "only you can write to it" if private else "others can write to it", f"chmod 700 {root}")


def _installer(name: str, installer: Installer) -> Iterator[Check]:
    yield Check(f"installer {name}", True, installer.identity())


def _shared_memory() -> Check:
    try:
        os.close(os.memfd_create("flame-doctor"))
    except (OSError, AttributeError) as error:
        return Check("shared memory", False, f"memfd_create: {error}", "large values need Linux 3.17 or later")
    return Check("shared memory", True, "anonymous, nothing stays in /dev/shm")


def show(found: list[Check], json: bool) -> None:
    """Print them; status 1 when one is not fine."""
    if json:
        print_json({"ok": all(check.ok for check in found), "checks": [asdict(check) for check in found]})
    else:
        for check in found:
            typer.echo(f"{'ok  ' if check.ok else 'FAIL'}  {check.name:<14} {check.detail}")
            if not check.ok and check.fix:
                typer.echo(f"      → {check.fix}")
    if not all(check.ok for check in found):
        raise typer.Exit(FAILED)
