"""The index of these tests, and the environment of its user."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flame_host.testing.installers import make_wheel

sys.path.insert(0, str(Path(__file__).parent))  # what these tests share stands beside them

from local_index import BACKENDS, PRIVATE, Index, repack


@pytest.fixture(scope="session")
def index(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Index]:
    directory = tmp_path_factory.mktemp("index")
    for version in ("1.0", "1.5", "2.0"):
        make_wheel(directory, "alpha", version)
    make_wheel(directory, "beta", "1.0", requires=("alpha",))
    make_wheel(directory, "gamma", "1.0")
    for name in PRIVATE:
        make_wheel(directory, name, "99.0")
    for name in BACKENDS:
        repack(directory, name)
    served = Index(directory)
    yield served
    served.close()


@pytest.fixture(scope="session")
def installing(index: Index, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a user of that index, and of a host of its own."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("FLAME_", "UV_", "PIP_", "VIRTUAL_ENV", "PYTEST"))}
    return {
        **kept,
        "FLAME_HOST_ROOT": str(tmp_path_factory.mktemp("host-root")),
        "HOME": str(tmp_path_factory.mktemp("home")),
        "UV_DEFAULT_INDEX": index.url,
        "UV_CACHE_DIR": str(tmp_path_factory.mktemp("uv-cache")),
        "PIP_INDEX_URL": index.url,
        "PIP_CACHE_DIR": str(tmp_path_factory.mktemp("pip-cache")),
    }
