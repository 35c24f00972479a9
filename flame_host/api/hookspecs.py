"""The eight hooks. A hook offers, a provider works: hooks are called once, at start-up, and never per task.

A plugin is a module named by an entry point of group ``flame_host``; it implements any of these functions with `hookimpl`, cheaply: what
is heavy is imported in the providers' methods. Each example below is a whole plugin module.

Longer than 300 lines for its examples; the hooks are eight lines.
"""

from __future__ import annotations

from collections.abc import Iterable

import pluggy

from flame_host.api.deployment import Deployer
from flame_host.api.execution import Engine, Observer
from flame_host.api.formats import Archiver, Cache, Installer, Serializer, Store

PROJECT = "flame_host"
ENTRY_POINT_GROUP = "flame_host"
API_VERSION = 1
"""Grows when a contract changes incompatibly. A plugin module may say ``FLAME_API_VERSION = 1``; another number is refused."""

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@hookspec
def flame_stores() -> Iterable[Store]:
    """Offer places that packages are published to and fetched from.

    Called once, when the plugins are loaded, on the client and on the host: both use stores.

    Returns:
        Stores, keyed by their URL schemes.

    Example::

        from flame_host.api import PackageNotFoundError, hookimpl

        KEPT = {}

        class MemoryStore:
            schemes = ("memory",)

            def publish(self, source, location, *, name, digest, overwrite=False):
                url = f"{location.rstrip('/')}/{name}"
                KEPT[url] = source.read_bytes()
                return url

            def fetch(self, url, target, *, size_limit, deadline):
                if url not in KEPT:
                    raise PackageNotFoundError(f"{url} is not kept here")
                target.write_bytes(KEPT[url])

            def delete(self, url):
                KEPT.pop(url, None)

        @hookimpl
        def flame_stores():
            return [MemoryStore()]
    """
    raise NotImplementedError


@hookspec
def flame_archivers() -> Iterable[Archiver]:
    """Offer archive formats.

    Called once, when the plugins are loaded, on the client, which writes archives, and on the host, which reads them.

    Returns:
        Archivers, keyed by name; a file is recognised by suffix and magic.

    Example::

        from flame_host.api import ArchiveError, Member, hookimpl

        class Lines:
            name = "lines"
            suffixes = (".lines",)
            magic = ((0, b"lines\\n"),)

            def write(self, members, target):
                target.write(b"lines\\n")
                for member in members:
                    content = member.content if isinstance(member.content, bytes) else b"".join(member.content)
                    target.write(f"{member.name} {content.hex()}\\n".encode())

            def read(self, source, limits):
                if source.readline() != b"lines\\n":
                    raise ArchiveError("not an archive of lines")
                for line in source:
                    name, _, content = line.decode().rstrip().rpartition(" ")
                    yield Member(name, size=len(content) // 2, content=bytes.fromhex(content))

        @hookimpl
        def flame_archivers():
            return [Lines()]
    """
    raise NotImplementedError


@hookspec
def flame_installers() -> Iterable[Installer]:
    """Offer tools that make an environment.

    Called once, when the plugins are loaded; only the host's are used.

    Returns:
        Installers, keyed by name.

    Example::

        import sys
        import venv
        from pathlib import Path

        from flame_host.api import InstallError, InterpreterNotFoundError, hookimpl

        class Bare:
            name = "bare"

            def identity(self):
                return f"bare on {sys.version_info.major}.{sys.version_info.minor}"

            def find_python(self, version):
                if version and version != f"{sys.version_info.major}.{sys.version_info.minor}":
                    raise InterpreterNotFoundError(f"bare has no Python {version}")
                return Path(sys.executable)

            def install(self, request):
                if request.requirements.dependencies or request.extra:
                    raise InstallError("bare installs nothing", log=request.log)
                venv.create(request.target, with_pip=False)
                return request.target / "bin" / "python"

        @hookimpl
        def flame_installers():
            return [Bare()]
    """
    raise NotImplementedError


@hookspec
def flame_serializers() -> Iterable[Serializer]:
    """Offer formats of arguments, results and code.

    Called once, when the plugins are loaded, on the client and on the host. Workers load the codec module, not the plugin.

    Returns:
        Serializers, keyed by name; payloads say name and version.

    Example::

        import contextlib
        import pickle

        from flame_host.api import FormatNotAllowedError, NotSerializableError, SerializationError, hookimpl

        class Plain:
            name, version = "plain", 1
            traits = frozenset({"executes-code", "same-python"})
            codec, worker_modules = "pickle", ()

            def dumps(self, value, *, buffers=None, reference=None):
                try:
                    return pickle.dumps(value)
                except Exception as error:
                    raise NotSerializableError(f"value cannot be pickled: {error}", path="value") from error

            def loads(self, data, *, buffers=(), resolve=None):
                try:
                    return pickle.loads(data)
                except Exception as error:
                    raise SerializationError(f"cannot read a pickle: {error}") from error

            def dumps_code(self, value, *, buffers=None, reference=None):
                return self.dumps(value, buffers=buffers, reference=reference)

            def loads_code(self, data, *, buffers=(), allow=None):
                if allow is not None:
                    raise FormatNotAllowedError("a pickle imports what it likes")
                return self.loads(data)

            def by_value(self, modules):
                return contextlib.nullcontext()

        @hookimpl
        def flame_serializers():
            return [Plain()]
    """
    raise NotImplementedError


@hookspec
def flame_caches() -> Iterable[Cache]:
    """Offer places where results and shared objects are kept.

    Called once, when the plugins are loaded, on the client and on the host.

    Returns:
        Caches, keyed by name; an endpoint finds one by its scheme.

    Example::

        import itertools

        from flame_host.api import ObjectNotFoundError, ObjectRef, VersionConflictError, hookimpl

        class Objects:
            endpoint = "memory:"

            def __init__(self):
                self._kept, self._names = {}, itertools.count()

            def put(self, key, payload):
                key = key if key.count("/") == 2 else f"{key}/{next(self._names)}"
                self._kept[key] = [payload]
                return ObjectRef(self.endpoint, key, 1, payload.format, payload.size)

            def get(self, ref):
                try:
                    return self._kept[ref.key][ref.version - 1]
                except LookupError:
                    raise ObjectNotFoundError(f"no object {ref.key}") from None

            def update(self, ref, payload, *, if_version=None):
                versions = self._kept.get(ref.key)
                if versions is None:
                    raise ObjectNotFoundError(f"no object {ref.key}")
                if if_version not in (None, len(versions)):
                    raise VersionConflictError(f"{ref.key} is at version {len(versions)}")
                versions.append(payload)
                return ObjectRef(self.endpoint, ref.key, len(versions), payload.format, payload.size)

            def delete(self, key):
                gone = [known for known in self._kept if f"{known}/".startswith(f"{key.rstrip('/')}/")]
                for known in gone:
                    del self._kept[known]
                return len(gone)

            def close(self):
                pass

        class MemoryCache:
            name = "memory"
            schemes = ("memory",)

            def open(self, endpoint):
                return Objects()

        @hookimpl
        def flame_caches():
            return [MemoryCache()]
    """
    raise NotImplementedError


@hookspec
def flame_engines() -> Iterable[Engine]:
    """Offer ways to run sessions.

    Called once, when the plugins are loaded; only the client's are used.

    Returns:
        Engines, keyed by the schemes of their endpoints.

    Example::

        from flame_host.api import hookimpl

        class Borrowed:
            \"\"\"Another engine under a name of one's own.\"\"\"

            name = "borrowed"
            schemes = ("borrowed",)

            def connect(self, endpoint, services):
                from flame_host import Host

                return Host().connect("inline:")

        @hookimpl
        def flame_engines():
            return [Borrowed()]
    """
    raise NotImplementedError


@hookspec
def flame_observers() -> Iterable[Observer]:
    """Offer receivers of what happens to packages, sessions and executors.

    Called once, when the plugins are loaded, on every host.

    Returns:
        Observers, keyed by name; all of them are told.

    Example::

        from flame_host.api import hookimpl

        class Printer:
            name = "print"

            def observe(self, events):
                for event in events:
                    print(event.kind, event.detail)

        @hookimpl
        def flame_observers():
            return [Printer()]
    """
    raise NotImplementedError


@hookspec
def flame_deployers() -> Iterable[Deployer]:
    """Offer those who serve what ``flame build`` made.

    Called once, when the plugins are loaded; only the client's are used.

    Returns:
        Deployers, keyed by name: ``flame deploy --to NAME``.

    Example::

        import shutil
        from pathlib import Path

        from flame_host.api import hookimpl

        class Copies:
            \"\"\"Leaves the archive where a server of one's own takes it from.\"\"\"

            name = "copies"

            def deploy(self, release):
                place = Path(release.options["directory"], release.application)
                place.mkdir(parents=True, exist_ok=True)
                shutil.copy(release.archive, place)
                return self.endpoints(release.application, release.options)

            def endpoints(self, application, options):
                place = Path(options["directory"], application)
                return {file.name: file.as_uri() for file in place.glob("*")}

            def undeploy(self, application, options):
                place = Path(options["directory"], application)
                there = place.exists()
                shutil.rmtree(place, ignore_errors=True)
                return there

        @hookimpl
        def flame_deployers():
            return [Copies()]
    """
    raise NotImplementedError
