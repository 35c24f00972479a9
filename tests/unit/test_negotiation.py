"""Negotiation is pure, so it can be tried exhaustively."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flame_host.api import Capabilities, Capability, NegotiationError, Want, Wants, intersect_policies, negotiate

FAMILIES = ("stores", "archivers", "installers", "serializers", "caches")
PICKLE = Capability("cloudpickle", 1, frozenset({"executes-code", "same-python"}))
MSGPACK = Capability("msgpack", 1, frozenset({"cross-language"}))


def side(python: str = "3.11", **families: list[Capability]) -> Capabilities:
    offered = {
        "stores": [Capability("file")],
        "archivers": [Capability("tar.gz")],
        "installers": [Capability("uv")],
        "serializers": [PICKLE, MSGPACK],
        "caches": [Capability("local")],
    }
    offered.update(families)
    return Capabilities(offered, python=python)


def test_every_refusal_is_reported_at_once_with_its_config_line():
    wants = Wants(
        {
            "archivers": Want(("zip",), "pyproject.toml:7 [tool.flame] archivers"),
            "installers": Want(("conda",), "FLAME_INSTALLERS"),
        }
    )
    with pytest.raises(NegotiationError) as caught:
        negotiate(wants, side(), side())
    text = str(caught.value)
    assert len(caught.value.problems) == 2
    assert "pyproject.toml:7 [tool.flame] archivers wants archivers zip; on offer: tar.gz" in text
    assert "pip install flame-archive-zip" in text
    assert 'write  archivers = ["tar.gz"]' in text
    assert "FLAME_INSTALLERS wants installers conda" in text


def test_a_list_is_closed_unless_it_ends_in_a_star():
    both = side(archivers=[Capability("tar.gz"), Capability("zip")])
    assert negotiate(Wants({"archivers": Want(("zst", "zip"))}), both, both).archiver == "zip"
    assert negotiate(Wants({"archivers": Want(("zst", "*"))}), both, both).archiver == "tar.gz"
    with pytest.raises(NegotiationError):
        negotiate(Wants({"archivers": Want(("zst",))}), both, both)


def test_the_clients_order_decides():
    client = side(serializers=[MSGPACK, PICKLE])
    assert negotiate(Wants(), client, side()).serializers == ("msgpack/1", "cloudpickle/1")


def test_a_denial_wins_over_any_wish():
    wants = Wants({"serializers": Want(("cloudpickle",), "Runner(serializers=)")})
    with pytest.raises(NegotiationError, match="policy pickle = deny"):
        negotiate(wants, side(), side(), {"pickle": "deny"})
    assert negotiate(Wants(), side(), side(), {"pickle": "deny"}).serializers == ("msgpack/1",)


def test_formats_that_need_the_same_python_are_refused_across_minor_versions():
    assert negotiate(Wants(), side("3.11"), side("3.12")).serializer == "msgpack/1"
    with pytest.raises(NegotiationError, match=r"client has 3\.11, the workers 3\.12"):
        negotiate(Wants({"serializers": Want(("cloudpickle",))}), side("3.11"), side("3.12"))


def test_formats_of_another_major_version_are_refused():
    with pytest.raises(NegotiationError, match="the client has version 2, the host 1"):
        negotiate(Wants({"caches": Want(("local",))}), side(caches=[Capability("local", 2)]), side())


def test_an_installer_is_the_hosts_alone():
    assert negotiate(Wants(), side(installers=[]), side()).installer == "uv"


@pytest.mark.parametrize(
    ("policies", "merged"),
    [
        (({"pickle": "allow"}, {"pickle": "deny"}), {"pickle": "deny"}),
        (({"pickle": "deny"}, {"pickle": "allow"}), {"pickle": "deny"}),
        (({}, {"pickle": "allow"}), {"pickle": "allow"}),
    ],
)
def test_policies_are_intersected_never_overridden(policies, merged):
    assert intersect_policies(*policies) == merged


names = st.sampled_from(["a", "b", "c", "d"])
offers = st.lists(names, unique=True, max_size=4).map(lambda some: [Capability(name) for name in some])
wanted = st.lists(st.one_of(names, st.just("*")), max_size=4, unique=True).map(
    lambda some: tuple(sorted(some, key=lambda name: name == "*"))
)


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)  # of a busy machine, which says nothing about what is tested
@given(client=st.fixed_dictionaries(dict.fromkeys(FAMILIES, offers)), host=st.fixed_dictionaries(dict.fromkeys(FAMILIES, offers)),
       wants=st.dictionaries(st.sampled_from(FAMILIES), wanted))  # fmt: skip
def test_the_line_that_is_advised_works(client, host, wants):
    ours, theirs = Capabilities(client), Capabilities(host)
    asked = {family: Want(some) for family, some in wants.items()}
    try:
        plan = negotiate(Wants(asked), ours, theirs)
    except NegotiationError as refused:
        if not all(problem.working for problem in refused.problems):
            return
        for problem in refused.problems:
            asked[problem.family] = Want(problem.working)
        plan = negotiate(Wants(asked), ours, theirs)
    offered = {family: {capability.name for capability in theirs.of(family)} for family in FAMILIES}
    assert plan.store in offered["stores"]
    assert plan.archiver in offered["archivers"]
    assert plan.installer in offered["installers"]
    assert plan.cache in offered["caches"]
    assert {form.partition("/")[0] for form in plan.serializers} <= offered["serializers"]
