"""Resources: what they refuse, and that both vocabularies mean the same."""

from __future__ import annotations

from typing import Any

import pytest
from flamepy import CpuLiveServerless, CpuResource, GpuResource, LiveServerless, Resource

from flame_host.api import ConfigError


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"name": "  "}, "needs a name"),
        ({"name": None}, "needs a name"),
        ({"cpu": -1}, "cpu is -1"),
        ({"gpu": "A100"}, "gpu is 'A100'"),
        ({"cpu": True}, "cpu is True"),
        ({"memory": "lots"}, "memory is 'lots'"),
        ({"memory": -1}, "memory is -1"),
        ({"workers": (3, 1)}, r"workers is \(3, 1\)"),
        ({"workers": (0, 0)}, r"workers is \(0, 0\)"),
        ({"workers": 0}, "workers is 0"),
        ({"dependencies": [3]}, "dependencies must be a list of text"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(given: dict[str, Any], reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        Resource(**{"name": "r", **given})


@pytest.mark.parametrize("kind", [CpuResource, CpuLiveServerless])
def test_a_cpu_resource_has_no_gpu(kind: type[Resource]) -> None:
    with pytest.raises(ConfigError, match="with gpu=1"):
        kind(name="r", gpu=1)


def test_what_is_not_said_has_a_default() -> None:
    resource = Resource("r")
    assert (resource.cpu, resource.gpu, resource.memory, resource.workers, dict(resource.env)) == (1, 0, 0, (0, 3), {})
    assert GpuResource("r").gpu == 1


def test_settings_are_brought_into_one_form() -> None:
    resource = Resource("r", memory="4 GiB", workers=5, dependencies="numpy", system_dependencies=["ffmpeg"])
    assert (resource.memory, resource.workers) == (4 << 30, (0, 5))
    assert (resource.dependencies, resource.system_dependencies) == (("numpy",), ("ffmpeg",))


def test_the_other_vocabulary_means_the_same() -> None:
    resource = LiveServerless(name="r", workersMin=1, workersMax=4, gpuCount=2, env={"A": "1"}, idleTimeout=5, gpus=["any"])
    assert isinstance(resource, GpuResource)
    assert (resource.gpu, resource.workers, resource.env) == (2, (1, 4), {"A": "1"})
    assert resource.options == {"idleTimeout": 5, "gpus": ["any"]}
    assert CpuLiveServerless(name="r", workersMax=2).workers == (0, 2)


def test_equal_resources_are_equal_and_can_be_keys() -> None:
    assert len({Resource("r", cpu=2), Resource("r", cpu=2), Resource("r", cpu=3)}) == 2
