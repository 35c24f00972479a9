"""Wheels and source distributions by URL are packages, with a query and with ``#sha256=``."""

from __future__ import annotations

import hashlib
import subprocess
import tarfile
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from local_index import Index

from flame_host import Host
from flame_host.api import Application, DigestMismatchError, PackageRef
from flame_host.testing.installers import make_wheel


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    directory = tmp_path / "served"
    directory.mkdir()
    served = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
    threading.Thread(target=served.serve_forever, daemon=True).start()
    yield directory, f"http://127.0.0.1:{served.server_port}"
    served.shutdown()
    served.server_close()


def version(host: Host, url: str) -> str:
    lease = host.provision(Application("url", package=PackageRef(url, "", 0, "")))
    program = "import urlapp; print(urlapp.VERSION)"
    return subprocess.run([lease.environment.python, "-I", "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def test_a_wheel_by_url_with_query_and_digest(tmp_path: Path, server: tuple[Path, str]) -> None:
    directory, url = server
    wheel = make_wheel(directory, "urlapp", "1.0")
    host = Host(root=tmp_path / "root", offline=True)
    digest = hashlib.sha256(wheel.read_bytes()).hexdigest()
    with pytest.raises(DigestMismatchError):
        version(host, f"{url}/{wheel.name}?token=x#sha256={'0' * 64}")
    assert version(host, f"{url}/{wheel.name}?token=x#sha256={digest}") == "1.0"
    assert version(host, f"{url}/{wheel.name}?token=y") == "1.0"


def test_a_source_distribution_by_url(tmp_path: Path, server: tuple[Path, str], index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, url = server
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    inside = tmp_path / "urlapp-2.0"
    inside.mkdir()
    (inside / "PKG-INFO").write_text("Metadata-Version: 2.1\nName: urlapp\nVersion: 2.0\n")
    (inside / "pyproject.toml").write_text('[build-system]\nrequires = ["setuptools"]\nbuild-backend = "setuptools.build_meta"\n')
    (inside / "setup.py").write_text('from setuptools import setup\nsetup(name="urlapp", version="2.0", py_modules=["urlapp"])\n')
    (inside / "urlapp.py").write_text("VERSION = '2.0'\n")
    with tarfile.open(directory / "urlapp-2.0.tar.gz", "w:gz") as archive:
        archive.add(inside, "urlapp-2.0")
    assert version(Host(root=tmp_path / "root"), f"{url}/urlapp-2.0.tar.gz?token=x#egg=urlapp") == "2.0"
