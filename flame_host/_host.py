"""The host: what the plugins offer, put to work for applications."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from flame_host._plugins.catalog import Catalog
from flame_host._plugins.observers import ObserverThread
from flame_host._settings import Settings, load_settings
from flame_host.api import (
    Application,
    Cache,
    Capabilities,
    Connection,
    Environment,
    Event,
    Lease,
    LogRecord,
    PackageRef,
    Plan,
    ProjectNeeds,
    Serializer,
)


class Host:
    """Finds plugins, provisions applications, connects engines. Cheap to make: everything is done when first asked for.

    Args:
        settings: instead of those read from file and environment.
        plugins: plugin modules to use besides those installed, as ``(name, module)``.
        foreign_clients: programs may bring a ``flamepy`` that is not this project's; otherwise they are refused.
        overrides: single settings by name, over file and environment.
    """

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        plugins: Sequence[tuple[str, ModuleType]] = (),
        foreign_clients: bool = False,
        **overrides: Any,
    ) -> None:
        self._foreign_clients = foreign_clients
        self._given = settings
        self._overrides: Mapping[str, Any] = overrides
        self._extra = tuple(plugins)
        self._lock = threading.Lock()
        self._log_sinks: list[Callable[[LogRecord], None]] = []
        self._event_sinks: list[Callable[[Event], None]] = []
        self._support: dict[object, Path] = {}

    @cached_property
    def settings(self) -> Settings:
        return self._given or load_settings(**self._overrides)

    @property
    def root(self) -> Path:
        """Where environments, trees and working directories are kept."""
        return self.settings.root

    @cached_property
    def catalog(self) -> Catalog:
        """Everything the plugins offer, by family and name."""
        return Catalog(self.settings.selection, self._extra, self.settings.policy)

    @cached_property
    def _provisioner(self) -> Any:
        from flame_host._packages.provisioner import Provisioner

        return Provisioner(self.settings, self.catalog, self.observe, foreign_clients=self._foreign_clients)

    @cached_property
    def _observers(self) -> ObserverThread:
        return ObserverThread(self.catalog.observers())

    def capabilities(self) -> Capabilities:
        """What this host can do, for `negotiate`."""
        return self.catalog.capabilities()

    def connect(self, endpoint: str = "") -> Connection:
        """Connect an engine by its endpoint: ``local:`` (the default), ``inline:``, or a scheme that a plugin serves."""
        endpoint = endpoint or "local:"
        if ":" not in endpoint:
            endpoint += ":"
        return self.catalog.engine(endpoint.partition(":")[0]).connect(endpoint, self)

    def provision(self, application: Application) -> Lease:
        """Fetch, verify, unpack and install; quick when it was done before.

        Raises:
            PackageError, ProvisionError, ConfigError: with stage, provider and application.
        """
        lease: Lease = self._provisioner.provision(application)
        return lease

    def project_needs(self, root: Path, script: Path | None = None) -> ProjectNeeds:
        """What a project on this machine needs, and what of that stands outside of it.

        Raises:
            ConfigError: a file of it cannot be parsed or contradicts itself.
        """
        from flame_host._packages.project import needs_of

        return needs_of(root, script)

    def keep_files(self, base: Path, names: Sequence[str], links: Mapping[str, str], extra: Mapping[str, bytes]) -> PackageRef:
        """A package for engines of this machine: every content is kept once, so an edit copies what was edited.

        Args:
            names: of files below ``base``. links: symbolic links among them, with what they lead to. extra: files by content.

        Raises:
            PackageError: one could not be unpacked; names it.
        """
        package: PackageRef = self._provisioner.files.keep(base, names, links, extra)
        return package

    def check_listing(self, names: Sequence[str], links: Mapping[str, str]) -> None:
        """Refuse, before an archive is made, what a host would refuse to unpack.

        Raises:
            PackageError: names the file.
        """
        from flame_host._packages.listings import check_listing

        check_listing(names, links, self.settings.limits)

    def workers_python(self, wanted: str) -> str:
        """``major.minor`` that workers get for a wish: a version in any spelling, a specifier, a path; empty when it says nothing."""
        from flame_host._packages.interpreters import minor_of

        return minor_of(wanted)

    def refresh(self, application: str) -> None:
        """The next environment of an application is installed anew, whatever there is."""
        self._provisioner.refresh(application)

    def support(self, environment: Environment, plan: Plan) -> Path:
        """See `flame_host.api.HostServices.support`."""
        from flame_host._packages.support import runs_client, support_directory

        with_client = runs_client(environment.python_version)
        key = (plan.serializers, with_client)
        with self._lock:
            if key not in self._support:
                modules = {module for format in plan.serializers for module in self.serializer(format).worker_modules}
                self._support[key] = support_directory(self.root, sorted(modules), with_client)
            return self._support[key]

    def serializer(self, format: str) -> Serializer:
        return self.catalog.serializer(format)

    def cache(self, name: str) -> Cache:
        return self.catalog.cache(name)

    def add_log_sink(self, sink: Callable[[LogRecord], None]) -> Callable[[], None]:
        """Send workers' output to a callable, from a background thread; returns a function that stops it."""
        self._log_sinks = [*self._log_sinks, sink]

        def remove() -> None:
            self._log_sinks = [other for other in self._log_sinks if other is not sink]

        return remove

    def log(self, record: LogRecord) -> None:
        for sink in self._log_sinks:
            sink(record)

    def add_event_sink(self, sink: Callable[[Event], None]) -> Callable[[], None]:
        """Call it with every event, at once, in the thread it happens in, so it must be quick; returns a function that stops that."""
        self._event_sinks = [*self._event_sinks, sink]

        def remove() -> None:
            self._event_sinks = [other for other in self._event_sinks if other is not sink]

        return remove

    def observe(self, event: Event) -> None:
        for sink in self._event_sinks:
            sink(event)
        self._observers.add(event)
