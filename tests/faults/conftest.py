"""What the fault tests share: a Runner in an environment of its own, and the table that is printed at the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner, disconnect

from flame_host.testing.processes import eventually

HEADINGS = ("fault", "promised", "seen", "everything else")
Row = Callable[[str, str, str, str], None]


@pytest.fixture
def row(request: pytest.FixtureRequest) -> Row:
    """Adds a row to the table: name, what is promised, what was seen, how everything else fared."""

    def add(name: str, promised: str, seen: str, others: str = "unharmed") -> None:
        request.node.user_properties.append(("fault", (name, promised, seen, others)))

    return add


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Every fault as a line; also those whose promise was broken, or is known not to be kept yet."""
    rows = []
    for outcome, verdict in (("passed", ""), ("xfailed", "NOT YET"), ("failed", "FAILED")):
        for report in terminalreporter.stats.get(outcome, ()):
            if report.when != "call" or "faults" not in report.nodeid:
                continue
            found = [value for key, value in report.user_properties if key == "fault"]
            if verdict:
                name = report.nodeid.rpartition("::")[2]
                found = [(name.partition("[")[2].rstrip("]").replace("-", " ") or name, "", verdict, getattr(report, "wasxfail", ""))]
            rows.extend(found)
    if not rows:
        return
    widths = [max(len(str(line[column])) for line in [HEADINGS, *rows]) for column in range(4)]
    kept = sum(1 for line in rows if line[2] not in ("FAILED", "NOT YET"))
    terminalreporter.section(f"{len(rows)} faults, {kept} as promised")
    for line in [HEADINGS, tuple("-" * width for width in widths), *rows]:
        terminalreporter.write_line("  ".join(str(cell).ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


@pytest.fixture(scope="module")
def faults_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The environment of a user who has configured nothing, for a module: what is tested next in this process has its own."""
    home = tmp_path_factory.mktemp("faults-home")
    project = home / "project"
    project.mkdir()
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("FLAME_")]:
            patch.delenv(name)
        patch.setenv("HOME", str(home))
        patch.setenv("FLAME_HOST_ROOT", str(home / "root"))
        patch.setenv("FLAME_HOST_OFFLINE", "1")
        yield home


@pytest.fixture(scope="module")
def runner(faults_home: Path) -> Iterator[Runner]:
    """One Runner for a module: what one fault does to it, the next would notice."""
    with Runner("faults", engine="local", package=False, project=faults_home / "project", logs="none") as rr:
        yield rr
    disconnect()


@pytest.fixture(autouse=True, scope="module")
def _nothing_is_left() -> Iterator[None]:
    before = set(descendants())  # of the tests that had this process earlier
    segments = {name for name in os.listdir("/dev/shm") if "flame" in name or name.startswith("psm_")}
    yield
    assert eventually(lambda: set(descendants()) <= before, 2.0), f"processes left behind: {set(descendants()) - before}"
    assert {name for name in os.listdir("/dev/shm") if "flame" in name or name.startswith("psm_")} <= segments


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(pid: int | None = None) -> list[int]:
    """Living processes below one, at any depth."""
    found = []
    own = pid or os.getpid()
    try:
        threads = os.listdir(f"/proc/{own}/task")
    except FileNotFoundError:
        return []
    for thread in threads:
        try:
            children = Path(f"/proc/{own}/task/{thread}/children").read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        for child in map(int, children):
            if alive(child):
                found += [child, *descendants(child)]
    return found


@pytest.fixture
def helpers() -> Any:
    """`eventually`, `alive` and `descendants`, for modules that cannot import this one."""
    return type(
        "Helpers", (), {"eventually": staticmethod(eventually), "alive": staticmethod(alive), "descendants": staticmethod(descendants)}
    )
