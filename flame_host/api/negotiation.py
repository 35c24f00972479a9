"""Wants × capabilities → Plan. Pure: no I/O, no clock, no globals."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flame_host.api.capabilities import Capabilities, Capability
from flame_host.api.errors import NegotiationError, Problem
from flame_host.api.policy import denies, parse_policy
from flame_host.api.sessions import Plan

REST = "*"
"""As the last name of a list: "and whatever else both sides have"."""

_DISTRIBUTIONS = {
    "stores": {
        "file": "flame-fetch-file",
        "http": "flame-fetch-http",
        "https": "flame-fetch-http",
        "s3": "flame-fetch-s3",
        "grpc": "flame-cache-flight",
        "grpcs": "flame-cache-flight",
    },
    "archivers": {
        **dict.fromkeys(("tar", "tar.gz", "tar.bz2", "tar.xz"), "flame-archive-tar"),
        "zip": "flame-archive-zip",
    },
    "installers": {"uv": "flame-install-uv", "pip": "flame-install-pip"},
    "serializers": {"cloudpickle": "flame-serialize-cloudpickle", "msgpack": "flame-serialize-msgpack"},
    "caches": {"local": "flame-cache-local", "flight": "flame-cache-flight"},
    "engines": {
        "local": "flame-host",
        "inline": "flame-host",
        "http": "flame-engine-flame",
        "https": "flame-engine-flame",
        "ray": "flame-engine-ray",
    },
    "deployers": {"directory": "flame-host-sdk"},
}
"""What brings the names we know of, and nothing else: to advise a name made of a typing error would be to advise a stranger's code."""

FAMILIES = ("stores", "archivers", "installers", "serializers", "caches")
"""The families a plan decides on, in the order problems are reported."""

_HOST_ONLY = frozenset({"installers"})


@dataclass(frozen=True)
class Want:
    """An ordered list of names, and the config line it comes from."""

    names: tuple[str, ...]
    origin: str = "default"


@dataclass(frozen=True)
class Wants:
    """What an application wants of each family; a family left out takes whatever both sides have."""

    families: Mapping[str, Want] = field(default_factory=dict)

    def of(self, family: str) -> Want:
        return self.families.get(family, Want((REST,)))


def negotiate(wants: Wants, client: Capabilities, host: Capabilities, policy: Mapping[str, str] | None = None) -> Plan:
    """Agree on one provider a family, or refuse with every reason at once.

    The client's order decides; a list is closed unless it ends in ``*``; a denial by the policy wins over any wish.

    Raises:
        NegotiationError: carrying one `Problem` a family that cannot be agreed on. ConfigError: the policy has a word nobody knows.
    """
    policy = parse_policy(policy)
    agreed: dict[str, tuple[str, ...]] = {}
    problems = []
    for family in FAMILIES:
        names, problem = _agree(family, wants.of(family), client, host, policy)
        agreed[family] = names
        if problem is not None:
            problems.append(problem)
    if problems:
        raise NegotiationError(problems)
    return Plan(
        store=agreed["stores"][0],
        archiver=agreed["archivers"][0],
        installer=agreed["installers"][0],
        serializers=agreed["serializers"],
        cache=agreed["caches"][0],
        policy=policy,
    )


def _agree(
    family: str, want: Want, client: Capabilities, host: Capabilities, policy: Mapping[str, str]
) -> tuple[tuple[str, ...], Problem | None]:
    refusals: dict[str, str] = {}
    common: dict[str, str] = {}
    ours = {capability.name: capability for capability in (host if family in _HOST_ONLY else client).of(family)}
    theirs = {capability.name: capability for capability in host.of(family)}
    for name, capability in ours.items():
        refusal = _refusal(capability, theirs.get(name), client, host, policy)
        if refusal:
            refusals[name] = refusal
        else:
            common[name] = f"{name}/{capability.version}" if family == "serializers" else name
    chosen = [name for name in want.names if name in common]
    if want.names and want.names[-1] == REST:
        chosen += [name for name in common if name not in chosen]
    if chosen:
        return tuple(common[name] for name in chosen), None
    return (), _problem(family, want, ours, theirs, tuple(common), refusals)


def _refusal(ours: Capability, theirs: Capability | None, client: Capabilities, host: Capabilities, policy: Mapping[str, str]) -> str:
    if theirs is None:
        return "the host does not have it"
    if ours.version != theirs.version:
        return f"the client has version {ours.version}, the host {theirs.version}"
    if "executes-code" in ours.traits and denies(policy, "pickle"):
        return "policy pickle = deny"
    if "same-python" in ours.traits and client.python and host.python and client.python != host.python:
        return f"needs the same Python on both sides; the client has {client.python}, the workers {host.python}"
    return ""


def _problem(
    family: str,
    want: Want,
    ours: Mapping[str, Capability],
    theirs: Mapping[str, Capability],
    common: Sequence[str],
    refusals: Mapping[str, str],
) -> Problem:
    named = [name for name in want.names if name != REST]
    missing = next((name for name in named if name not in ours or name not in theirs), "")
    side = "client" if missing and missing not in ours else "host"
    reasons = [f"{name}: {refusals[name]}" for name in (named or refusals) if name in refusals]
    if missing and missing not in refusals:
        reasons.insert(0, f"{missing}: the {side} does not have it")
    if missing and (near := near_name(family, missing, (*ours, *theirs))):
        reasons.append(f"did you mean {near!r}?")
    return Problem(
        family=family,
        wanted=want.names,
        origin=want.origin,
        offered=tuple(ours if side == "client" else theirs),
        working=common,
        distribution=distribution_of(family, missing) if missing else "",
        reason="; ".join(reasons),
    )


def distribution_of(family: str, name: str) -> str:
    """The distribution that brings a provider, ``("archivers", "tar.xz")`` → ``flame-archive-tar``; empty when we know of none."""
    return _DISTRIBUTIONS.get(family, {}).get(name, "")


def near_name(family: str, name: str, offered: Sequence[str]) -> str:
    """The name on offer, or one known to exist, that was probably meant; empty when there is none like it."""
    near = difflib.get_close_matches(name, [*offered, *_DISTRIBUTIONS.get(family, {})], 1, 0.7)
    return near[0] if near and near[0] != name else ""
