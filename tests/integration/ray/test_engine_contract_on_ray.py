"""The engine contract on a Ray cluster."""

from __future__ import annotations

import pytest
from flame_engine_ray.plugin import RayEngine

from flame_host.api import Engine
from flame_host.testing.engine_contract import EngineContract


class TestTheRayEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Engine:

        return RayEngine()

    @pytest.fixture
    def endpoint(self, ray_endpoint: str) -> str:
        return ray_endpoint
