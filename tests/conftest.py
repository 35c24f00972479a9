"""What tests that cross distributions share."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_host.testing.installers import make_wheel

APPS = Path(__file__).parent / "apps"


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``flametestdep`` 1.0 and 2.0, which cannot be installed together."""
    directory = tmp_path_factory.mktemp("wheelhouse")
    for version in ("1.0", "2.0"):
        make_wheel(directory, "flametestdep", version)
    return directory


@pytest.fixture(scope="session")
def host_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One root for the whole run: environments are shared, as a user's are."""
    return tmp_path_factory.mktemp("host-root")


@pytest.fixture
def offline_host(monkeypatch: pytest.MonkeyPatch, host_root: Path, wheelhouse: Path) -> Path:
    """The environment of a user whose host installs from the wheelhouse only."""
    for name in [name for name in os.environ if name.startswith("FLAME_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("FLAME_PROGRESS", "0")  # on a busy machine anything may take a second, and be said to
    monkeypatch.setenv("FLAME_HOST_ROOT", str(host_root))
    monkeypatch.setenv("FLAME_HOST_WHEELHOUSE", str(wheelhouse))
    monkeypatch.setenv("FLAME_HOST_OFFLINE", "1")
    monkeypatch.setenv("HOME", str(host_root))  # no flame.yaml of the person who runs the tests
    return host_root


@pytest.fixture
def shapes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, offline_host: Path) -> Iterator[Path]:
    """A copy of the ``shapes`` application, current directory and importable, as in its author's shell."""
    project = tmp_path / "shapes"
    shutil.copytree(APPS / "shapes", project, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(project)
    monkeypatch.setenv("FLAME_PROJECT", str(project))  # the tests themselves stand in another project
    monkeypatch.syspath_prepend(str(project / "src"))
    yield project
    for name in [name for name in sys.modules if name.partition(".")[0] == "shapes"]:
        del sys.modules[name]
