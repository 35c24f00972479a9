"""The engine contract on worker processes."""

from __future__ import annotations

import pytest

from flame_host.api import Engine
from flame_host.engine.plugin import flame_engines
from flame_host.testing.engine_contract import EngineContract


class TestTheLocalEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:
        return next(engine for engine in flame_engines() if engine.name == "local")

    @pytest.fixture
    def endpoint(self) -> str:
        return "local:"
