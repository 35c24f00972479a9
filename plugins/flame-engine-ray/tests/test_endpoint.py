"""What an endpoint may say, and what is told about what it may not. Sessions on a cluster are tested in tests/integration/ray."""

from __future__ import annotations

import pytest

pytest.importorskip("ray", reason="the group `ray` of development dependencies is not installed")

from flame_engine_ray.bundle import bundle, closure
from flame_engine_ray.cluster import Endpoint

from flame_host.api import ConfigError


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ray:?cpu=2", "unknown option 'cpu'"),
        ("ray:?cpus=many", "cpus='many' does not fit"),
        ("ray:?placement=everywhere", "placement='everywhere' does not fit"),
        ("ray:auto?autoscaling=perhaps", "autoscaling='perhaps' does not fit"),
        ("ray:auto?object_store=1g", "for a cluster that is started here"),
    ],
)
def test_what_is_not_understood_is_refused(text: str, said: str):
    with pytest.raises(ConfigError, match=said):
        Endpoint.parse(text)


@pytest.mark.parametrize(
    ("text", "address"),
    [("ray:", "local"), ("ray:auto", "auto"), ("ray:10.0.0.1:6379", "10.0.0.1:6379"), ("ray://head:10001?namespace=x", "ray://head:10001")],
)
def test_an_endpoint_names_a_cluster(text: str, address: str):
    assert Endpoint.parse(text).address == address


def test_options_are_amounts_and_resources():
    endpoint = Endpoint.parse("ray:?cpus=2&object_store=256m&resource.accelerator=0.5&placement=pack")
    assert (endpoint.cpus, endpoint.object_store, endpoint.placement) == (2, 256 << 20, "DEFAULT")
    assert endpoint.custom == {"accelerator": 0.5}


def test_what_travels_is_the_host_and_what_it_needs_but_not_ray():
    travelling = closure(["flame-host", "flame-engine-ray"])
    assert {"flame-host", "flame-engine-ray", "pluggy", "packaging", "pyyaml"} <= set(travelling)
    assert not {"ray", "uv", "typer"} & set(travelling)


def test_the_same_files_make_the_same_bundle():
    first = bundle(frozenset())
    bundle.cache_clear()
    assert bundle(frozenset()).digest == first.digest
