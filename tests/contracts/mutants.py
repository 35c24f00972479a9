"""Our own providers, each with one fault. Not collected on its own: `test_contract_suites_catch_faults` runs it.

Every family has a class ``Test<Family>Sound`` without a fault: what fails there counts for nothing.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import time
from dataclasses import replace
from typing import Any

import pytest
from flame_archive_zip.zip import Zip
from flame_cache_local.local_cache import LocalCache
from flame_fetch_file.file_store import FileStore, path_of
from flame_install_uv.uv import UvInstaller
from flame_serialize_msgpack.plugin import flame_serializers

from flame_host.api import InstallError, ObjectNotFoundError, PackageNotFoundError, StoreError
from flame_host.engine.plugin import InlineEngine
from flame_host.testing.archivers import ArchiverContract
from flame_host.testing.caches import CacheContract
from flame_host.testing.engine_contract import EngineContract
from flame_host.testing.installers import InstallerContract
from flame_host.testing.observers import ObserverContract
from flame_host.testing.serializers import SerializerContract
from flame_host.testing.stores import StoreContract

Msgpack: Any = type(flame_serializers()[0])


class Wrapped:
    """Hands everything on; a fault overrides one method."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


# ---------------------------------------------------------------------------------------------------- faults


class ArchiverLosesExecutable(Zip):
    def write(self, members, target):
        super().write((member._replace(executable=False) for member in members), target)


class ArchiverDropsEmptyDirectories(Zip):
    def read(self, source, limits):
        return (member for member in super().read(source, limits) if member.name.rstrip("/") != "empty")


class ArchiverIgnoresBudget(Zip):
    def read(self, source, limits):
        return super().read(source, replace(limits, compressed_bytes=1 << 60))


class ArchiverWritesTheClock(Zip):
    def write(self, members, target):
        from flame_host.api import Member

        super().write([*members, Member(f"made-{time.time_ns()}")], target)


class ArchiverReadsPastDamage(Zip):
    def read(self, source, limits):
        with contextlib.suppress(Exception):
            yield from super().read(io.BytesIO(source.read()), limits)


class StoreForgetsSizeLimit(FileStore):
    def fetch(self, url, target, *, size_limit, deadline):
        super().fetch(url, target, size_limit=1 << 60, deadline=deadline)


class StoreForgetsDeadline(FileStore):
    def fetch(self, url, target, *, size_limit, deadline):
        super().fetch(url, target, size_limit=size_limit, deadline=60)


class StoreAlwaysOverwrites(FileStore):
    def publish(self, source, location, *, name, digest, overwrite=False):
        return super().publish(source, location, name=name, digest=digest, overwrite=True)


class StoreTrustsDigest(FileStore):
    def publish(self, source, location, *, name, digest, overwrite=False):
        directory = path_of(location)
        directory.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, directory / name)
        return (directory / name).as_uri()


class StoreSaysOnlyStoreError(FileStore):
    def fetch(self, url, target, *, size_limit, deadline):
        try:
            super().fetch(url, target, size_limit=size_limit, deadline=deadline)
        except PackageNotFoundError as error:
            raise StoreError(str(error)) from error


class StoreKeepsDeleted(FileStore):
    def delete(self, url):
        pass


class InstallerSwallowsFailure(UvInstaller):
    def install(self, request):
        try:
            return super().install(request)
        except InstallError:
            return request.target / "bin" / "python"


class InstallerForgetsLog(UvInstaller):
    def install(self, request):
        try:
            return super().install(request)
        except InstallError as error:
            raise InstallError(error.message) from error


class InstallerIgnoresDependencies(UvInstaller):
    def install(self, request):
        return super().install(replace(request, requirements=replace(request.requirements, dependencies=())))


class InstallerFindsAnyPython(UvInstaller):
    def find_python(self, version):
        return super().find_python(">=3")


class InstallerUsesOurEnvironment(UvInstaller):
    def install(self, request):
        super().install(request)
        return request.python


class SerializerTurnsTuplesIntoLists(Msgpack):
    def loads(self, data, *, buffers=(), resolve=None):
        value = super().loads(data, buffers=buffers, resolve=resolve)
        return list(value) if isinstance(value, tuple) else value


class SerializerIgnoresReferences(Msgpack):
    def dumps(self, value, *, buffers=None, reference=None):
        return super().dumps(value, buffers=buffers)


class SerializerLeaksItsErrors(Msgpack):
    def loads(self, data, *, buffers=(), resolve=None):
        if len(data) < 3:
            raise IndexError("too short")
        return super().loads(data, buffers=buffers, resolve=resolve)


class SerializerKeepsBuffersInline(Msgpack):
    def dumps(self, value, *, buffers=None, reference=None):
        return super().dumps(value, reference=reference)


class FaultyCache(LocalCache):
    fault: Any = Wrapped

    def open(self, endpoint):
        return self.fault(super().open(endpoint))


class CacheIgnoresIfVersion(FaultyCache):
    class fault(Wrapped):
        def update(self, ref, payload, *, if_version=None):
            return self.inner.update(ref, payload)


class CacheAnswersAnyVersion(FaultyCache):
    class fault(Wrapped):
        def get(self, ref):
            return self.inner.get(replace(ref, version=0))


class CacheLosesBuffers(FaultyCache):
    class fault(Wrapped):
        def put(self, key, payload):
            return self.inner.put(key, replace(payload, buffers=()))


class CacheMiscountsDeleted(FaultyCache):
    class fault(Wrapped):
        def delete(self, key):
            return min(1, self.inner.delete(key))


class CacheRaisesKeyError(FaultyCache):
    class fault(Wrapped):
        def get(self, ref):
            try:
                return self.inner.get(ref)
            except ObjectNotFoundError as error:
                raise KeyError(ref.key) from error


class FaultyEngine(InlineEngine):
    fault: Any = Wrapped

    def connect(self, endpoint, services):
        return self.fault(super().connect(endpoint, services))


class EngineRegistersTwice(FaultyEngine):
    class fault(Wrapped):
        def register_application(self, application):
            with contextlib.suppress(Exception):
                self.inner.register_application(application)


class EngineForgetsSessions(FaultyEngine):
    class fault(Wrapped):
        def list_sessions(self):
            return []


class EngineSwallowsCalls(FaultyEngine):
    class fault(Wrapped):
        def open_session(self, spec):
            return SwallowingSession(self.inner.open_session(spec))


class SwallowingSession(Wrapped):
    def submit(self, task, method, data, buffers=(), references=()):
        task.fail(RuntimeError("lost"))


class Quiet:
    name = "quiet"

    def observe(self, events):
        pass


class ObserverEmptiesTheBatch(Quiet):
    def observe(self, events):
        events.clear()


class ObserverKnowsFewKinds(Quiet):
    def observe(self, events):
        for event in events:
            {"task.started": 1, "task.succeeded": 2}[event.kind]


class ObserverIsSlow(Quiet):
    def observe(self, events):
        time.sleep(len(events) * 0.0003)


class ObserverWantsABatch(Quiet):
    def observe(self, events):
        return events[0]


# ---------------------------------------------------------------------------------------------------- the suites on them

CASES: dict[str, tuple[type, str, type, dict[str, Any]]] = {
    "Archiver": (ArchiverContract, "provider", Zip, {"hard_links": False}),
    "Store": (StoreContract, "store", FileStore, {"location": pytest.fixture(lambda self, tmp_path: (tmp_path / "packages").as_uri())}),
    "Installer": (InstallerContract, "provider", UvInstaller, {}),
    "Serializer": (SerializerContract, "serializer", Msgpack, {}),
    "Cache": (CacheContract, "cache", FaultyCache, {"endpoint": pytest.fixture(lambda self: "local:")}),
    "Engine": (EngineContract, "engine", FaultyEngine, {"endpoint": pytest.fixture(lambda self: "inline:")}),
    "Observer": (ObserverContract, "observer", Quiet, {}),
}
MUTANTS = {
    family: [
        name
        for name, value in list(globals().items())
        if isinstance(value, type) and name.startswith(family) and issubclass(value, CASES[family][2])
    ]
    for family in CASES
}


def _suite(contract: type, fixture: str, provider: type, extra: dict[str, Any]) -> type:
    def make(self: object) -> Any:
        return provider()

    return type("Suite", (contract,), {**extra, fixture: pytest.fixture(make), "__module__": __name__})


for _family, (_contract, _fixture, _sound, _extra) in CASES.items():
    globals()[f"Test{_family}Sound"] = _suite(_contract, _fixture, _sound, _extra)
    for _name in MUTANTS[_family]:
        globals()[f"Test{_name}"] = _suite(_contract, _fixture, globals()[_name], _extra)
