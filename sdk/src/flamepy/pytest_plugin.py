"""Fixtures for the tests of programs that use flamepy; pytest loads it on its own.

Nothing is imported until a test asks for a fixture.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from flamepy import Runner


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("flame").addoption(
        "--flame-engine",
        default="",
        metavar="ENDPOINT",
        help="engine for the flame fixtures, as Runner(engine=…) has it; by default this process, and workers where the project is sent",
    )


@pytest.fixture(scope="session")
def flame_engine(request: pytest.FixtureRequest) -> str:
    """The engine that `flame_runner` uses; override it, or say ``--flame-engine=ENDPOINT``."""
    from flamepy._config.settings import DEBUGGING_ENGINE

    return str(request.config.getoption("--flame-engine") or DEBUGGING_ENGINE)


@pytest.fixture
def make_flame_runner(flame_engine: str) -> Iterator[Callable[..., Runner]]:
    """Makes Runners that are closed, in reverse order, when the test ends. Keywords are those of `flamepy.Runner`."""
    import contextlib

    from flamepy import Runner

    with contextlib.ExitStack() as stack:

        def make(name: str = "test", **options: Any) -> Runner:
            options = {"engine": flame_engine, "package": False, **options}
            return stack.enter_context(Runner(name, **options))

        yield make


@pytest.fixture
def flame_runner(make_flame_runner: Callable[..., Runner]) -> Runner:
    """An open Runner without a package: the code under test travels by value, or is importable where the workers run."""
    return make_flame_runner()


@pytest.fixture
def flame_project_runner(make_flame_runner: Callable[..., Runner], request: pytest.FixtureRequest) -> Runner:
    """An open Runner that sends the project pytest runs in, to worker processes unless ``--flame-engine`` says otherwise."""
    from flamepy._config.settings import DEFAULT_ENGINE

    engine = request.config.getoption("--flame-engine") or DEFAULT_ENGINE
    return make_flame_runner(package=True, project=request.config.rootpath, engine=engine)
