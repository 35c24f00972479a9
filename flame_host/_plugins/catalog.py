"""What is on offer, with its provenance: the frozen result of loading the plugins."""

from __future__ import annotations

import sys
import sysconfig
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any, cast

from flame_host._plugins.loading import PluginRecord, Selection, Status, call_hook, load_plugins, no_provider
from flame_host.api import (
    Archiver,
    Cache,
    Capabilities,
    Capability,
    Deployer,
    Engine,
    FormatNotAllowedError,
    Installer,
    Observer,
    Serializer,
    Store,
    check_format,
    distribution_of,
)

_KEYS = {
    "stores": "schemes",
    "archivers": "name",
    "installers": "name",
    "serializers": "name",
    "caches": "name",
    "engines": "schemes",
    "observers": "name",
    "deployers": "name",
}
"""Family → the attribute of a provider that holds the key, or keys, users type."""

_PROTOCOLS: dict[str, type] = {
    "stores": Store,
    "archivers": Archiver,
    "installers": Installer,
    "serializers": Serializer,
    "caches": Cache,
    "engines": Engine,
    "observers": Observer,
    "deployers": Deployer,
}

_PREFERRED = ("tar.gz", "uv", "cloudpickle", "file", "local")
"""Where several would do and nothing was asked for, these come first: the host's defaults, then by name."""


class Catalog:
    """Providers by family and key. Reading it never fails; asking for what is not there does, and says what to install."""

    def __init__(
        self,
        selection: Selection | None = None,
        extra: Sequence[tuple[str, ModuleType]] = (),
        policy: Mapping[str, str] | None = None,
    ) -> None:
        self._policy = policy or {}
        modules, self.records = load_plugins(selection or Selection(), extra)
        self._providers: dict[str, dict[str, tuple[Any, PluginRecord]]] = {family: {} for family in _KEYS}
        for record, module in modules:
            self._admit(record, module)

    def _admit(self, record: PluginRecord, module: ModuleType) -> None:
        """All that a plugin offers, or nothing of it."""
        offered = [(family, provider) for family in _KEYS for provider in call_hook(record, module, f"flame_{family}")]
        if record.status is not Status.ACTIVE:
            return
        entries = []
        for family, provider in offered:
            try:
                keys = _keys(family, provider)
            except Exception as error:
                record.status = Status.INCOMPATIBLE
                record.reason = f"{type(provider).__name__} is no provider of {family}: {type(error).__name__}: {error}"
                return
            for key in keys:
                holder = self._providers[family].get(key)
                if holder is not None:
                    record.status = Status.SHADOWED
                    record.reason = f"{family[:-1]} {key!r} is offered by {holder[1].distribution} already; uninstall one of the two"
                    return
                entries.append((family, key, provider))
        for family, key, provider in entries:
            self._providers[family][key] = (provider, record)
            record.offers.append(f"{family}:{key}")

    def archiver(self, name: str) -> Archiver:
        return cast(Archiver, self._find("archivers", name))

    def store(self, scheme: str) -> Store:
        return cast(Store, self._find("stores", scheme))

    def installer(self, name: str) -> Installer:
        return cast(Installer, self._find("installers", name))

    def cache(self, name: str) -> Cache:
        return cast(Cache, self._find("caches", name))

    def engine(self, scheme: str) -> Engine:
        return cast(Engine, self._find("engines", scheme))

    def deployer(self, name: str) -> Deployer:
        return cast(Deployer, self._find("deployers", name))

    def serializer(self, format: str) -> Serializer:
        """By name, or by name and major version as payloads say it (``"cloudpickle/1"``); none that the host's policy denies."""
        name, _, version = format.partition("/")
        serializer = cast(Serializer, self._find("serializers", name))
        if version and version != str(serializer.version):
            raise FormatNotAllowedError(
                f"payload of format {format}, but this side reads {name}/{serializer.version}",
                hint=f"install the same version of {distribution_of('serializers', name)} on both sides",
            )
        check_format(format, serializer, self._policy)
        return serializer

    def all(self, family: str) -> Mapping[str, Any]:
        """Every provider of a family, by key, in order of preference."""
        entries = self._providers[family]
        return {key: entries[key][0] for key in sorted(entries, key=_preference)}

    def observers(self) -> list[Observer]:
        return list(self.all("observers").values())

    def capabilities(self) -> Capabilities:
        """What this side can do, for `negotiate`."""
        families = {
            family: tuple(_capability(key, *entries[key]) for key in sorted(entries, key=_preference))
            for family, entries in self._providers.items()
        }
        return Capabilities(families, python=f"{sys.version_info.major}.{sys.version_info.minor}", platform=sysconfig.get_platform())

    def _find(self, family: str, key: str) -> object:
        entry = self._providers[family].get(key)
        if entry is None:
            raise no_provider(family, key, self._providers[family])
        return entry[0]


def _capability(key: str, provider: object, record: PluginRecord) -> Capability:
    if isinstance(provider, Serializer):  # the one kind whose versions and traits are negotiated
        return Capability(key, provider.version, frozenset(provider.traits), record.distribution)
    return Capability(key, distribution=record.distribution)


def _keys(family: str, provider: object) -> list[str]:
    protocol = _PROTOCOLS[family]
    if not isinstance(provider, protocol):
        missing = sorted(name for name in _members(protocol) if name not in dir(provider))
        raise TypeError(f"it has no {', '.join(missing)}, see flame_host.api.{protocol.__name__}")
    value = getattr(provider, _KEYS[family])
    keys = [value] if isinstance(value, str) else list(value)
    if not keys or not all(isinstance(key, str) and key for key in keys):
        raise TypeError(f"{_KEYS[family]} must be a non-empty string or several")
    return keys


def _members(protocol: type) -> list[str]:
    return [name for name in vars(protocol) if not name.startswith("_")]


def _preference(key: str) -> tuple[int, str]:
    return (_PREFERRED.index(key) if key in _PREFERRED else len(_PREFERRED), key)
