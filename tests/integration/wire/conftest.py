"""A simulated executor manager, and a watch that nothing it started stays behind."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from flame_host.api import Buffer, ObjectRef, Payload, buffer_view
from flame_host.testing.executor_manager import Binding, ExecutorManager, Registration, descendants
from flame_host.wire.client import Answer
from flame_host.wire.envelope import CallOrder, SessionOrder, decode_outcome, encode_call, encode_session


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A directory with a path short enough for sockets, empty again when the test is over."""
    directory = Path(tempfile.mkdtemp(prefix="flm-"))
    yield directory
    left = [path.name for path in directory.iterdir()]
    shutil.rmtree(directory)
    assert left == []
    assert list(descendants(os.getpid())) == []


@pytest.fixture
def manager(sockets: Path) -> Iterator[ExecutorManager]:
    with ExecutorManager(sockets) as manager:
        yield manager


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], Registration]:
    """Registers a Python program of the given source."""

    def register(source: str, **facts: object) -> Registration:
        path = tmp_path / "program.py"
        path.write_text(source)
        return Registration("service", arguments=(str(path),), **facts)  # type: ignore[arg-type]

    return register


class Client:
    """Speaks our envelopes: opens sessions of the hosted entrypoint, calls, and reads what comes back."""

    def __init__(self, manager: ExecutorManager, directory: Path) -> None:
        from flame_host._plugins.catalog import Catalog

        self.manager = manager
        self.directory = directory
        self.catalog = Catalog()
        self.serializer = self.catalog.serializer("cloudpickle/1")

    def payload(self, value: object) -> Payload:
        """By value where it is from a test module, which no worker can import."""
        buffers: list[Buffer] = []
        module = getattr(value if hasattr(value, "__qualname__") else type(value), "__module__", "")
        with self.serializer.by_value([module] if "test_" in module else []):  # type: ignore[attr-defined]
            return Payload("cloudpickle/1", self.serializer.dumps(value, buffers=buffers), tuple(buffers))

    def open(self, target: object, *, name: str = "app", session: str = "session", url: str | None = None, **facts: Any) -> Binding:
        environments = facts.pop("env", {})
        order = SessionOrder(self.payload(target), **facts)
        registration = Registration(name, url=url, environments=environments)
        return self.manager.bind(registration, session, encode_session(order))

    def send(self, binding: Binding, *args: Any, method: str = "", reports: bool = False, **kwargs: Any) -> Answer:
        return binding.invoke(encode_call(CallOrder(self.payload((args, kwargs)), method, reports=reports)))

    def call(self, binding: Binding, *args: Any, **kwargs: Any) -> Any:
        """The value, wherever it stands."""
        answer = self.send(binding, *args, **kwargs)
        assert answer.ok, answer
        return self.value(decode_outcome(answer.output or b"").content)

    def value(self, content: Payload | ObjectRef) -> Any:
        if isinstance(content, ObjectRef):
            store = self.catalog.cache("local").open(content.endpoint)
            content = store.get(content)
        return self.serializer.loads(content.data, buffers=[buffer_view(buffer) for buffer in content.buffers])


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The host's directory: environments made by one test serve the next, as on a node."""
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def client(sockets: Path, root: Path, tmp_path: Path) -> Iterator[Client]:
    environment = {**os.environ, "FLAME_HOST_ROOT": str(root), "FLAME_HOST_WHEELHOUSE": str(tmp_path), "RUST_LOG": "info"}
    with ExecutorManager(sockets, environment=environment, patience=60) as manager:
        yield Client(manager, tmp_path)


@pytest.fixture
def package(tmp_path: Path) -> Callable[..., str]:
    """Makes a project that depends on a wheel which stands beside it only; returns the URL of its archive."""

    def make(name: str = "project.tar.gz") -> str:
        wheel(tmp_path, "leanpad", "1.4", {"leanpad.py": "def pad(text): return '<' + text + '>'\n"})
        project = {
            "pyproject.toml": '[project]\nname = "shop"\nversion = "1"\nrequires-python = ">=3.10"\ndependencies = ["leanpad==1.4"]\n',
            "shop.py": "import leanpad, sys\n\ndef label(text):\n    return leanpad.pad(text)\n\ndef where():\n    return sys.prefix\n",
        }
        with tarfile.open(tmp_path / name, "w:gz") as archive:
            for path, text in project.items():
                member = tarfile.TarInfo(path)
                member.size = len(text)
                archive.addfile(member, io.BytesIO(text.encode()))
        return (tmp_path / name).as_uri()

    return make


def wheel(directory: Path, name: str, version: str, files: dict[str, str]) -> None:
    """The smallest wheel an installer takes."""
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(directory / f"{name}-{version}-py3-none-any.whl", "w") as archive:
        for path, text in {**files, f"{info}/RECORD": record}.items():
            archive.writestr(path, text)
