"""Settings of the host: defaults, then its file, then ``FLAME_HOST_*`` in the environment, then arguments."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from flame_host._plugins.loading import Selection
from flame_host._private import private_root
from flame_host.api import ConfigError, Limits, intersect_policies, parse_policy

_PREFIX = "FLAME_HOST_"


@dataclass(frozen=True)
class Settings:
    """What an operator can set.

    Attributes:
        root: directory for environments, trees, packages and working directories; the user's alone, or it is refused.
        plugins, no_plugins: names of plugins to import alone, or not at all.
        offline: installers may ask no index. wheelhouse: directories with wheels and sdists.
        policy: added to every application's own; the stricter wins.
        limits: budgets of unpacking. fetch_seconds, install_seconds: deadlines.
    """

    root: Path = Path()
    plugins: tuple[str, ...] = ()
    no_plugins: tuple[str, ...] = ()
    offline: bool = False
    wheelhouse: tuple[str, ...] = ()
    policy: Mapping[str, str] = field(default_factory=dict)
    limits: Limits = field(default_factory=Limits)
    fetch_seconds: float = 600.0
    install_seconds: float = 1800.0

    @property
    def selection(self) -> Selection:
        return Selection(self.plugins, self.no_plugins)


def load_settings(environ: Mapping[str, str] = os.environ, *, file: Path | None = None, **arguments: Any) -> Settings:
    """Read all layers; the result's root exists.

    Args:
        file: instead of ``config.toml`` in the user's configuration directory. arguments: single settings, over everything else.

    Raises:
        ConfigError: an unknown key (with the nearest known one) or a value of the wrong kind, naming file or variable.
    """
    values: dict[str, Any] = {}
    path = file or _config_file(environ)
    for key, value in _read(path).items():
        _take(values, key, value, f"{path}")
    for name, text in environ.items():
        if name.startswith(_PREFIX) and name.removeprefix(_PREFIX) not in _NO_SETTINGS:
            _take(values, name.removeprefix(_PREFIX).lower(), text, f"environment variable {name}")
    for key, value in arguments.items():
        _take(values, key, value, "Host(…)")
    settings = Settings(**values)
    root = settings.root if settings.root != Path() else _default_root()
    return replace(settings, root=private_root(root.expanduser().absolute()))


def root() -> Path:
    """The root that is in force for this user."""
    return load_settings().root


def _default_root() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or ("~/Library/Caches" if sys.platform == "darwin" else "~/.cache")
    return Path(cache, "flame-host")


def _config_file(environ: Mapping[str, str]) -> Path:
    given = environ.get(f"{_PREFIX}CONFIG")
    if given:
        if not Path(given).is_file():
            raise ConfigError(f"{_PREFIX}CONFIG names {given}, which is no file")
        return Path(given)
    return Path(environ.get("XDG_CONFIG_HOME") or "~/.config", "flame-host", "config.toml").expanduser()


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        return {}
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{path}: {error!s:.500}") from error


def _take(values: dict[str, Any], key: str, value: Any, origin: str) -> None:
    convert = _CONVERSIONS.get(key)
    if convert is None:
        near = get_close_matches(key, _CONVERSIONS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(_CONVERSIONS))}"
        raise ConfigError(f"{origin}: unknown setting {key!r}", hint=hint)
    try:
        converted = convert(value)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {error.message}", hint=error.hint) from error
    except (TypeError, ValueError) as error:
        raise ConfigError(f"{origin}: {key} = {value!r:.200} does not fit: {error}") from error
    values[key] = intersect_policies(values.get(key, {}), converted) if key == "policy" else converted


def _names(value: Any) -> tuple[str, ...]:
    if isinstance(value, str):
        return tuple(name.strip() for name in value.split(",") if name.strip())
    if not isinstance(value, (list, tuple)):
        raise TypeError("a list of names, or names with commas, is wanted")
    return tuple(str(name) for name in value)


def _truth(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False, "": False}
    if str(value).lower() not in known:
        raise ValueError("true or false is wanted")
    return known[str(value).lower()]


def _limits(value: Any) -> Limits:
    if isinstance(value, Limits):
        return value
    known = {item.name for item in fields(Limits)}
    for key in value:
        if key not in known:
            raise ValueError(f"unknown limit {key!r}; known: {', '.join(sorted(known))}")
    return Limits(**value)


_NO_SETTINGS = ("CONFIG", "CAPABILITIES", "APPLICATION", "SITE")
"""Variables of this prefix that are none: the file of settings, and what a cluster's nodes are told with an application."""

_CONVERSIONS: dict[str, Callable[[Any], Any]] = {
    "root": Path,
    "plugins": _names,
    "no_plugins": _names,
    "offline": _truth,
    "wheelhouse": _names,
    "policy": parse_policy,
    "limits": _limits,
    "fetch_seconds": float,
    "install_seconds": float,
}
