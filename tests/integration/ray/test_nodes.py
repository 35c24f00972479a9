"""What nodes lack and what they keep: tools, environments, packages."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import pytest

pytest.importorskip("ray", reason="the group `ray` of development dependencies is not installed")

from flamepy import Runner

from flame_host.api import ConfigError
from flame_host.testing.processes import eventually

pytestmark = [pytest.mark.usefixtures("offline_host"), pytest.mark.timeout(300)]


def _project(place: Path, version: str) -> Path:
    place.mkdir()
    (place / "pyproject.toml").write_text(f'[project]\nname = "{place.name}"\nversion = "1"\ndependencies = ["flametestdep=={version}"]\n')
    return place


def version() -> tuple[str, str]:
    import flametestdep

    return flametestdep.VERSION, os.environ["FLAME_HOST_ROOT"]


@pytest.fixture
def by_value() -> None:
    import sys

    import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[__name__])


def test_two_applications_with_versions_that_contradict_run_at_once(ray_endpoint: str, tmp_path: Path, by_value: None):
    with contextlib.ExitStack() as stack:
        services = []
        for number in ("1.0", "2.0"):
            project = _project(tmp_path / f"app{number[0]}", number)
            runner = stack.enter_context(Runner(project.name, engine=ray_endpoint, project=project))
            services.append(runner.service(version))
        answers = [future.get(timeout=120) for future in [service() for service in services]]
    assert [answer[0] for answer in answers] == ["1.0", "2.0"]
    assert {answer[1] for answer in answers} != {os.environ["FLAME_HOST_ROOT"]}  # the node's own, which got the packages from Ray


def test_on_a_node_without_uv_pip_is_agreed_on(ray_cluster, ray_endpoint: str, tmp_path: Path, by_value: None):
    import ray

    node = ray_cluster.add_node(variables={"PATH": "/usr/bin:/bin"}, resources={"without-uv": 1})
    try:
        assert eventually(lambda: "without-uv" in ray.cluster_resources(), 60)
        project = _project(tmp_path / "app", "1.0")
        with Runner("without-uv", engine=f"{ray_endpoint}?resource.without-uv=1", project=project) as rr:
            assert rr.plan.installer == "pip"
            number, root = rr.service(version)().get(timeout=180)
        assert number == "1.0"
        assert root.endswith("root-2")
    finally:
        ray_cluster.kill_node(node)


def test_an_executor_that_no_node_could_hold_is_refused(ray_endpoint: str, tmp_path: Path, by_value: None):
    with Runner("large", engine=ray_endpoint, package=False) as rr:
        with pytest.raises(ConfigError, match=r"none of the \d nodes .* has CPU=64"):
            rr.service(version, resreq="cpu=64")
        with pytest.raises(ConfigError, match="priority="):
            rr.service(version, resreq="cpu=1", priority=3)


def test_resources_are_reserved_with_ray(ray_endpoint: str, tmp_path: Path, by_value: None):
    import ray

    with Runner("reserved", engine=ray_endpoint, package=False) as rr:
        assert rr.service(lambda: "done", resreq="cpu=2")().get(timeout=120) == "done"
        assert ray.available_resources().get("CPU", 0) == 0
        assert rr.service(lambda: "next", resreq="cpu=1")().get(timeout=120) == "next"  # the idle one makes room
