"""Find, guard, block, order and report plugins.

pluggy's own entry-point loader imports in an arbitrary order, stops at the first broken plugin and cannot block before import;
this one scans once, sorts, and lets every plugin end in one of five states with a reason.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from importlib.metadata import Distribution, EntryPoint, distributions
from types import ModuleType

import pluggy

from flame_host._version import __version__
from flame_host.api import API_VERSION, ENTRY_POINT_GROUP, PluginError, distribution_of, near_name
from flame_host.api import hookspecs as specs


class Status(str, Enum):
    ACTIVE = "active"
    FAILED = "failed"
    INCOMPATIBLE = "incompatible"
    DISABLED = "disabled"
    SHADOWED = "shadowed"


@dataclass
class PluginRecord:
    """What became of one entry point.

    Attributes:
        offers: ``family:key`` of everything it brings.
    """

    name: str
    module: str
    distribution: str
    version: str
    status: Status = Status.ACTIVE
    reason: str = ""
    offers: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Selection:
    """Which plugins may be imported.

    Attributes:
        only: when not empty, no others. blocked: never; wins over ``only``.
    """

    only: tuple[str, ...] = ()
    blocked: tuple[str, ...] = ()

    def refusal(self, name: str) -> str:
        if name in self.blocked:
            return "blocked by FLAME_HOST_NO_PLUGINS or -p no:"
        if self.only and name not in self.only:
            return "not listed in FLAME_HOST_PLUGINS"
        return ""


@dataclass(frozen=True)
class Found:
    """An entry point, and what its distribution says of itself.

    Attributes:
        wants: its requirement of flame-host, when it names one.
    """

    entry_point: EntryPoint
    distribution: str
    version: str
    wants: str = ""


def load_plugins(
    selection: Selection, extra: Sequence[tuple[str, ModuleType]] = ()
) -> tuple[list[tuple[PluginRecord, ModuleType]], list[PluginRecord]]:
    """Import every admitted plugin, in the order of their names.

    Args:
        extra: plugins handed over directly, before those installed (tests, embedded hosts).

    Returns:
        The modules that can be asked, with their records; and the records of all, the unusable ones too.
    """
    records: list[PluginRecord] = []
    modules: list[tuple[PluginRecord, ModuleType]] = []
    seen: dict[str, PluginRecord] = {}
    for name, module in extra:
        record = PluginRecord(name, module.__name__, "(in this process)", "")
        records.append(record)
        seen[name] = record
        modules.append((record, module))
    for found in scan():
        entry_point = found.entry_point
        record = PluginRecord(entry_point.name, entry_point.value, found.distribution, found.version)
        records.append(record)
        earlier = seen.setdefault(entry_point.name, record)
        if earlier is not record:
            record.status = Status.SHADOWED
            both = f"{earlier.distribution}, {found.distribution}"
            record.reason = f"plugin name {entry_point.name!r} is taken by {earlier.distribution}; uninstall one of {both}"
            continue
        loaded = _load(found, record, selection)
        if loaded is not None:
            modules.append((record, loaded))
    return modules, records


def call_hook(record: PluginRecord, module: ModuleType, hook: str) -> list[object]:
    """What a plugin offers for one hook; a hook that raises fails the plugin and offers nothing."""
    function = getattr(module, hook, None)
    if function is None or not hasattr(function, f"{specs.PROJECT}_impl"):
        return []
    try:
        offered = function()
        return list(offered) if isinstance(offered, Iterable) else [offered]
    except Exception as error:
        record.status = Status.FAILED
        record.reason = f"{hook}() raised {type(error).__name__}: {error}"
        return []


def scan() -> list[Found]:
    """Every entry point of ours, sorted by name; metadata is read only of those distributions that have one."""
    found: dict[tuple[str, str, str], Found] = {}
    for distribution in distributions():
        for entry_point in distribution.entry_points:
            if entry_point.group == ENTRY_POINT_GROUP:
                name, version, wants = _identity(distribution)
                found.setdefault((entry_point.name, entry_point.value, name), Found(entry_point, name, version, wants))
    return sorted(found.values(), key=lambda item: (item.entry_point.name, item.distribution))


_HOST = re.compile(r"flame[-_.]host(?![\w.-])", re.IGNORECASE)


def _identity(distribution: Distribution) -> tuple[str, str, str]:
    metadata = distribution.metadata
    wants = next((line for line in metadata.get_all("Requires-Dist") or () if _HOST.match(line)), "")
    return metadata["Name"] or "?", metadata["Version"] or "?", wants


def _other_version(wants: str) -> bool:
    """Whether a plugin was made for another flame-host than this one; what its installer would not have allowed, had it been asked."""
    if not wants or wants.partition("==")[2] == __version__:
        return False
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        return not Requirement(wants).specifier.contains(__version__, prereleases=True)
    except InvalidRequirement:
        return False


def _load(found: Found, record: PluginRecord, selection: Selection) -> ModuleType | None:
    entry_point = found.entry_point
    refusal = selection.refusal(entry_point.name)
    if refusal:
        record.status, record.reason = Status.DISABLED, refusal
        return None
    if _other_version(found.wants):
        record.status = Status.INCOMPATIBLE
        record.reason = f"{found.distribution} {found.version} wants {found.wants}, this is {__version__}; install both in one version"
        return None
    try:
        module = importlib.import_module(entry_point.value)
    except Exception as error:
        record.status, record.reason = Status.FAILED, f"import raised {type(error).__name__}: {error}"
        return None
    wanted = getattr(module, "FLAME_API_VERSION", API_VERSION)
    if wanted != API_VERSION:
        record.status = Status.INCOMPATIBLE
        older = "flame-host" if wanted > API_VERSION else record.distribution
        record.reason = f"made for plugin API {wanted}, this host has {API_VERSION}; upgrade {older}"
        return None
    problem = _misuse(module)
    if problem:
        record.status, record.reason = Status.INCOMPATIBLE, problem
        return None
    return module


def _misuse(module: ModuleType) -> str:
    """A hook that the host does not have, or that takes arguments it is not given."""
    for name, function in inspect.getmembers(module, inspect.isfunction):
        if not hasattr(function, f"{specs.PROJECT}_impl"):
            continue
        if not hasattr(specs, name):
            return f"implements unknown hook {name}(); known: {', '.join(hook_names())}"
        if inspect.signature(function).parameters:
            return f"hook {name}() takes no arguments"
    return ""


def hook_names() -> list[str]:
    manager = pluggy.PluginManager(specs.PROJECT)
    manager.add_hookspecs(specs)
    return sorted(name for name in vars(manager.hook) if name.startswith("flame_"))


def no_provider(family: str, name: str, offered: Iterable[str]) -> PluginError:
    """What is missing, and how to get it; a name that nobody knows is not advised to be installed."""
    names = sorted(offered)
    distribution, near = distribution_of(family, name), near_name(family, name, names)
    if distribution:
        hint = f"pip install {distribution}, or choose one of those on offer"
    elif near:
        hint = f"did you mean {near!r}?"
    elif family == "engines" and name in ("http", "https", "grpc", "ray"):
        hint = "engines of clusters are plugins, and none for this scheme is installed; without an engine, programs run on this machine"
    else:
        hint = "choose one of those on offer, or install the plugin that brings it"
    return PluginError(
        f"no {family[:-1]} named {name!r}; on offer: {', '.join(names) or 'none'}",
        hint=f"{hint}; `flame plugins` shows what is installed, and why a plugin is not active",
    )
