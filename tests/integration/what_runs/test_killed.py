"""Ended in the middle of making an environment, by whatever signal: no process of the installer stays, and nothing half-made."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from local_index import PYTHON, Index, run

from flame_host.testing.installers import make_wheel
from flame_host.testing.processes import eventually

PROGRAM = """
from flamepy import Runner


def version():
    import slow
    return slow.VERSION


if __name__ == "__main__":
    with Runner("killed") as rr:
        print(rr.service(version)().get())
"""


@pytest.fixture
def stalling(tmp_path: Path) -> Iterator[tuple[str, threading.Event, threading.Event]]:
    """An index whose wheel comes half, and the rest when it is let go."""
    wheels = tmp_path / "wheels"
    make_wheel(wheels, "slow", "1.0")
    asked, go = threading.Event(), threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path.startswith("/simple/"):
                name = self.path.strip("/").split("/")[1]
                body = b"".join(f'<a href="/{path.name}">{path.name}</a>'.encode() for path in wheels.glob(f"{name}-*"))
            else:
                body = (wheels / self.path.strip("/")).read_bytes()
            self.send_response(200)
            self.send_header("Content-Type", "text/html" if self.path.startswith("/simple/") else "application/octet-stream")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            half = len(body) // 2 if self.path.endswith(".whl") else 0
            try:
                self.wfile.write(body[:half])
                self.wfile.flush()
                if half:
                    asked.set()
                    go.wait(60)
                self.wfile.write(body[half:])
            except OSError:
                pass

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(wheels)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/simple/", asked, go
    go.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def temporary(tmp_path: Path) -> Iterator[Path]:
    """For temporary files; when the test is over there are none."""
    directory = tmp_path / "temporary"
    directory.mkdir()
    yield directory
    assert eventually(lambda: not list(directory.iterdir()), 15), list(directory.iterdir())


def processes_of(root: Path) -> list[str]:
    """Commands of all processes that were started with this root in their environment."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                if str(root).encode() in (entry / "environ").read_bytes():
                    found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue
    return found


def half_made(root: Path) -> list[Path]:
    kinds = [path for kind in ("envs", "builds", "trees") for path in (root / kind).glob("*")]
    hidden = [path for kind in ("envs", "builds", "trees") for path in (root / kind).glob(".*")]
    return [*hidden, *(path for path in kinds if not (root / "markers" / f"{path.parent.name}-{path.name}.json").is_file())]


@pytest.mark.parametrize("installer", ["uv", "pip"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_killed_in_the_middle_of_a_download(
    number: signal.Signals,
    installer: str,
    tmp_path: Path,
    temporary: Path,
    installing: dict[str, str],
    stalling: tuple[str, threading.Event, threading.Event],
) -> None:
    url, asked, go = stalling
    root = tmp_path / "root"
    place = tmp_path / "project"
    place.mkdir()
    (place / "main.py").write_text(PROGRAM)
    (place / "requirements.txt").write_text("slow\n")
    environment = {
        **installing,
        "TMPDIR": str(temporary),
        "FLAME_HOST_ROOT": str(root),
        "FLAME_INSTALLERS": installer,
        "UV_DEFAULT_INDEX": url,
        "PIP_INDEX_URL": url,
        "UV_CACHE_DIR": str(tmp_path / "cache"),
        "PIP_NO_CACHE_DIR": "1",
    }
    program = subprocess.Popen(
        [PYTHON, "main.py"], cwd=place, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        assert asked.wait(60), "the installer never asked for the wheel"
        assert any(installer in command for command in processes_of(root))
        program.send_signal(number)
        program.wait(30)
    finally:
        program.kill()
        program.communicate()
    assert eventually(lambda: not processes_of(root), 15), processes_of(root)
    assert eventually(lambda: not half_made(root), 15), half_made(root)
    go.set()
    assert run([PYTHON, "main.py"], place, environment) == "1.0\n"


@pytest.mark.parametrize("moment", ["packing", "unpacking"])
def test_killed_while_files_are_written(moment: str, tmp_path: Path, temporary: Path, index: Index, installing: dict[str, str]) -> None:
    root = tmp_path / "root"
    place = tmp_path / "project"
    place.mkdir()
    (place / "main.py").write_text(PROGRAM.replace("import slow\n    return slow.VERSION", 'return "done"'))
    if moment == "packing":
        (place / "large.bin").write_bytes(os.urandom(1 << 20) * 200)
    else:
        (place / "many").mkdir()
        for number in range(4000):
            (place / "many" / f"{number}.txt").write_text(str(number))
    environment = {**installing, "FLAME_HOST_ROOT": str(root), "TMPDIR": str(temporary)}
    program = subprocess.Popen([PYTHON, "main.py"], cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    begun = (lambda: any((root / "files").glob(".*"))) if moment == "packing" else (lambda: any((root / "trees").glob(".*")))
    deadline = time.monotonic() + 60
    while not begun() and time.monotonic() < deadline and program.poll() is None:
        time.sleep(0.001)
    program.kill()
    program.wait()
    assert eventually(lambda: not processes_of(root), 15), processes_of(root)
    assert eventually(lambda: not half_made(root), 15), half_made(root)
    assert run([PYTHON, "main.py"], place, environment) == "done\n"
    assert not list((root / "files").glob(".*"))


UPLOADING = """
import sys
from flamepy import Runner


def done():
    return "done"


if __name__ == "__main__":
    with Runner("killed", storage=sys.argv[1], archivers=["tar"]) as rr:
        print(rr.service(done)().get())
"""


@pytest.fixture
def storage(tmp_path: Path) -> Iterator[tuple[str, Path, threading.Event, threading.Event]]:
    """A package storage by HTTP that takes half of an upload, and the rest when it is let go."""
    kept = tmp_path / "kept"
    kept.mkdir()
    asked, go = threading.Event(), threading.Event()

    class Handler(SimpleHTTPRequestHandler):
        def do_PUT(self) -> None:
            left = size = int(self.headers["Content-Length"])
            content = b""
            while left:
                piece = self.rfile.read(min(left, 1 << 20))
                if not piece:
                    return
                content += piece
                left -= len(piece)
                if left < size // 2:
                    asked.set()
                    go.wait(60)
            (kept / Path(self.path).name).write_bytes(content)
            self.send_response(201)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def do_DELETE(self) -> None:
            (kept / Path(self.path).name).unlink(missing_ok=True)
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(kept)))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}", kept, asked, go
    go.set()
    server.shutdown()
    server.server_close()


def is_writing_below(pid: int, directory: Path) -> bool:
    """Whether a process has a file open there, be it one without a name."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(OSError):
            found.append(os.readlink(descriptor))
    return any(path.startswith(f"{directory}/") for path in found)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("where", ["http", "file"])
def test_killed_in_the_middle_of_an_upload(
    number: signal.Signals,
    where: str,
    tmp_path: Path,
    temporary: Path,
    installing: dict[str, str],
    storage: tuple[str, Path, threading.Event, threading.Event],
) -> None:
    url, kept, asked, go = storage
    if where == "file":
        url = kept.as_uri()
    root = tmp_path / "root"
    place = tmp_path / "project"
    place.mkdir()
    (place / "main.py").write_text(UPLOADING)
    (place / "large.bin").write_bytes(os.urandom(1 << 20) * 60)
    environment = {**installing, "FLAME_HOST_ROOT": str(root), "TMPDIR": str(temporary)}
    program = subprocess.Popen(
        [PYTHON, "main.py", url], cwd=place, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )
    try:
        assert eventually(lambda: asked.is_set() or is_writing_below(program.pid, kept), 60), "nothing was uploaded"
        program.send_signal(number)
        program.wait(30)
    finally:
        program.kill()
        program.communicate()
    go.set()
    assert eventually(lambda: not processes_of(root), 15), processes_of(root)
    assert not half_made(root)
    for path in kept.iterdir():  # the signal may have come after the last byte
        assert hashlib.sha256(path.read_bytes()).hexdigest()[:16] in path.name, "a package that is not whole has no name"
    assert run([PYTHON, "main.py", url], place, environment) == "done\n"
    assert not list(kept.iterdir()), "and the next run takes its own away"
