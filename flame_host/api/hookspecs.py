"""The eight hooks. A hook offers, a provider works: hooks are called once, at start-up, and never per task.

A plugin is a module named by an entry point of group ``flame_host``; it implements any of these functions with `hookimpl`::

    from flame_host.api import hookimpl

    @hookimpl
    def flame_archivers():
        return [ZstdTar()]
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from flame_host.api.deployment import Deployer
from flame_host.api.providers import Archiver, Cache, Engine, Installer, Observer, Serializer, Store

PROJECT = "flame_host"
ENTRY_POINT_GROUP = "flame_host"
API_VERSION = 1
"""Grows when a contract changes incompatibly. A plugin module may say ``FLAME_API_VERSION = 1``; another number is refused."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def flame_stores() -> Iterable[Store]:
    """Places packages are published to and fetched from, keyed by URL scheme."""
    raise NotImplementedError


@hookspec
def flame_archivers() -> Iterable[Archiver]:
    """Archive formats, keyed by name (``tar.gz``)."""
    raise NotImplementedError


@hookspec
def flame_installers() -> Iterable[Installer]:
    """Tools that make an environment, keyed by name (``uv``)."""
    raise NotImplementedError


@hookspec
def flame_serializers() -> Iterable[Serializer]:
    """Formats of arguments and results, keyed by name (``cloudpickle``)."""
    raise NotImplementedError


@hookspec
def flame_caches() -> Iterable[Cache]:
    """Places results and shared objects are kept, keyed by name (``local``)."""
    raise NotImplementedError


@hookspec
def flame_engines() -> Iterable[Engine]:
    """Ways to run sessions, keyed by endpoint scheme (``local``)."""
    raise NotImplementedError


@hookspec
def flame_observers() -> Iterable[Observer]:
    """Receivers of task and session events, keyed by name."""
    raise NotImplementedError


@hookspec
def flame_deployers() -> Iterable[Deployer]:
    """Those who serve what ``flame build`` made, keyed by name (``directory``)."""
    raise NotImplementedError
