"""A package index on this machine, for real uv and pip: dependencies, build backends, and a stranger under each private name."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import sys
import threading
import zipfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import distribution
from pathlib import Path

PRIVATE = ("liba", "libb", "libc", "rootproj", "web", "flatproj", "srcproj", "oldproj", "hatchproj", "pdmproj", "poetryproj", "lockproj")
BACKENDS = (
    "hatchling",
    "pathspec",
    "pluggy",
    "packaging",
    "trove-classifiers",
    "pdm-backend",
    "poetry-core",
    "setuptools",
    "wheel",
    "tomlkit",
    "editables",
)


class Index:
    """A simple repository (PEP 503) on 127.0.0.1.

    Attributes:
        asked: the names of projects that were looked up.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.asked: list[str] = []
        index = self

        class Handler(SimpleHTTPRequestHandler):
            def do_GET(self) -> None:
                parts = self.path.strip("/").split("/")
                if parts[0] == "simple" and len(parts) == 2:
                    index.asked.append(parts[1])
                    self._send(index.page(parts[1]))
                else:
                    super().do_GET()

            def _send(self, page: bytes) -> None:
                self.send_response(200 if page else 404)
                self.send_header("Content-Type", "text/html")
                self.send_header("Content-Length", str(len(page)))
                self.end_headers()
                self.wfile.write(page)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(directory)))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}/simple/"

    def page(self, name: str) -> bytes:
        links = []
        for path in sorted(self.directory.glob("*.whl")):
            if path.name.partition("-")[0].lower().replace("_", "-") == name:
                digest = hashlib.sha256(path.read_bytes()).hexdigest()
                links.append(f'<a href="/{path.name}#sha256={digest}">{path.name}</a>')
        return "\n".join(links).encode()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def repack(directory: Path, name: str) -> None:
    """A wheel of what is installed here: build backends without any other index."""
    found = distribution(name)
    inside = [
        file for file in found.files or () if ".." not in file.parts and "__pycache__" not in file.parts and "direct_url" not in file.name
    ]
    record = []
    tag = "py3-none-any"
    for line in (found.read_text("WHEEL") or "").splitlines():
        tag = line.partition(": ")[2] if line.startswith("Tag:") else tag
    path = directory / f"{found.name.replace('-', '_').lower()}-{found.version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for file in inside:
            if file.name in ("RECORD", "INSTALLER", "REQUESTED"):
                continue
            content = Path(str(file.locate())).read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
            record.append(f"{file},sha256={digest},{len(content)}")
            wheel.writestr(str(file), content)
        info = next(file.parts[0] for file in inside if file.name == "METADATA")
        wheel.writestr(f"{info}/RECORD", "\n".join([*record, f"{info}/RECORD,,"]) + "\n")


def run(argv: list[str], where: Path, environment: dict[str, str], *, fails: bool = False) -> str:
    """Its standard output; of one that is to fail, what it says on standard error."""
    done = subprocess.run(argv, cwd=where, env=environment, capture_output=True, text=True, timeout=110, check=False)
    if fails:
        assert done.returncode != 0, done.stdout
        return done.stderr
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def uv() -> str:
    from uv import find_uv_bin

    return str(find_uv_bin())


PYTHON = sys.executable
