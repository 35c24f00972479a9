"""Another user of this machine, a real one: made by the test when it is root. At umask 0, in every phase, it finds nothing to read,
plant or connect to.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from flame_host.testing.installers import make_wheel

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="makes another user, which only root can")

STRANGER = 48_123
"""A uid that nobody has; the kernel asks for no entry in /etc/passwd."""
OTHERS: list[str] = []
"""What stood in /tmp before, which is other programs'."""

PROGRAM = """
import os, sys, time
os.umask(0)
from pathlib import Path
from flamepy import Runner, put_object
from flame_cache_local.local_cache import LocalCache
from flame_host.api import Payload

def phase(name):
    print(name, flush=True)
    sys.stdin.readline()

project = Path(sys.argv[1])
sys.path.insert(0, str(project))
import work
phase("before")
rr = Runner("private", project=project, environments={"TOKEN": os.environ["HOLDS_IT"]})
rr.open()
phase("open")
service = rr.service(work.wait, warmup=1)
large = rr.put_object(bytes(1 << 20))
stored = LocalCache().open((Path(os.environ["FLAME_HOST_ROOT"]) / "objects").as_uri())
stored.put("app/session/one", Payload("msgpack/1", os.environ["HOLDS_IT"].encode()))
busy = service(str(project / "go"))
while busy.running() is False and not busy.done():
    time.sleep(0.01)
phase("running")
(project / "go").touch()
print(busy.get(60), file=sys.stderr)
phase("done")
from flame_host.wire.instance import InstanceServer
class Service:
    def on_session_enter(self, context): pass
    def on_task_invoke(self, context): return b""
    def on_session_leave(self): pass
sock = Path(os.environ["FLAME_HOST_ROOT"]).parent / "instance.sock"
server = InstanceServer(Service(), sock)
server.start()
from flamepy.build.server import HandlerServer
handler = HandlerServer(sys.argv[2])
Path(sys.argv[3]).write_text(handler.url)
phase("serving")
handler.close()
server.stop()
rr.close()
phase("closed")
"""

LOOK = """
import encodings.idna, http.client, json, os, socket, sys, urllib.error, urllib.request
home, pids, url, uid, others = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3], int(sys.argv[4]), json.loads(sys.argv[5])
urllib.request.build_opener()
os.setgroups([])  # only now: the interpreter's own files may stand where that user cannot read
os.setgid(uid)
os.setuid(uid)
found = []
def can(what, act):
    try:
        act()
    except (OSError, urllib.error.URLError):
        return
    found.append(what)
def connect(path):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
for directory, names, files in os.walk(home):
    for name in (*names, *files):
        path = os.path.join(directory, name)
        if os.path.islink(path):
            continue
        if os.path.isdir(path):
            can("plant in " + path, lambda: os.mkdir(path + "/planted"))
        elif os.path.isfile(path):
            can("read " + path, lambda: open(path, "rb").close())
            can("write " + path, lambda: open(path, "ab").close())
        else:
            can("connect to " + path, lambda: connect(path))
for line in open("/proc/net/unix"):
    path = line.split()[-1]
    if path.startswith("@") and "flame" in path:
        can("connect to " + path, lambda: connect("\\0" + path[1:]))
for name in os.listdir("/dev/shm"):
    if "flame" in name or "psm_" in name:
        can("read /dev/shm/" + name, lambda: open("/dev/shm/" + name, "rb").close())
for name in os.listdir("/tmp"):
    if name.startswith(("flame", "pip-", "uv-")) and name not in others:
        can("list /tmp/" + name, lambda: os.listdir("/tmp/" + name))
for pid in pids:
    for what in ("environ", "mem", "maps"):
        can(f"read {what} of {pid}", lambda: open(f"/proc/{pid}/{what}", "rb").read(1))
    can(f"list descriptors of {pid}", lambda: os.listdir(f"/proc/{pid}/fd"))
    can(f"signal {pid}", lambda: os.kill(pid, 0))
    if b"correct-horse-battery" in open(f"/proc/{pid}/cmdline", "rb").read():
        found.append(f"the secret in the command line of {pid}")
if url:
    request = urllib.request.Request(url + "/runsync", b'{"input": {}}', {"Content-Type": "application/json"})
    can("call the handler", lambda: urllib.request.urlopen(request, timeout=5))
    can("list what it serves", lambda: urllib.request.urlopen(url, timeout=5))
print(json.dumps(found))
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A directory that everybody may enter, as home directories often are: what is in it must keep itself."""
    for above in (tmp_path, *tmp_path.parents):
        if above.stat().st_uid == os.geteuid() and above != Path("/"):
            above.chmod(above.stat().st_mode | 0o055)
    OTHERS[:] = os.listdir("/tmp")
    home = tmp_path / "home"
    home.mkdir(mode=0o755)
    home.chmod(0o755)
    return home


def look(home: Path, pids: list[int], url: str) -> list[str]:
    """What the stranger can do, tried by a process of that user."""

    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", LOOK, str(home), json.dumps(pids), url, str(STRANGER), json.dumps(OTHERS)],
        capture_output=True, text=True, timeout=100, cwd="/",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout)
    return found


def test_another_user_finds_nothing_to_read_plant_or_connect_to_in_any_phase(home: Path, helpers: Any, row: Any):
    project = home / "project"
    project.mkdir(mode=0o700)
    (project / "work.py").write_text(
        textwrap.dedent(
            """
            import os, time
            def wait(path):
                open("written-by-the-task", "w").close()
                os.makedirs("made-by-the-task", exist_ok=True)
                while not os.path.exists(path):
                    time.sleep(0.01)
                return "went"
            """
        )
    )
    archive = project / "archive.tar.gz"
    _handler_archive(archive)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAME_")}
    environment |= {"HOME": str(home), "FLAME_HOST_ROOT": str(home / ".cache" / "flame-host"), "FLAME_HOST_OFFLINE": "1"}
    environment |= {"HOLDS_IT": "correct-horse-battery"}
    for name in ("XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_CONFIG_HOME"):
        environment.pop(name, None)
    phases = []
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(project), str(archive), str(project / "url")],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
    ) as process:  # fmt: skip
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            for line in process.stdout:
                phases.append(line.strip())
                url = (project / "url").read_text() if phases[-1] == "serving" else ""
                assert look(home, [process.pid, *helpers.descendants(process.pid)], url) == [], phases[-1]
                process.stdin.write("\n")
                process.stdin.flush()
        finally:
            if process.poll() is None:
                process.stdin.close()
        assert process.wait(60) == 0, process.stderr.read()
    assert phases == ["before", "open", "running", "done", "serving", "closed"]
    row("another uid at umask 0", "nothing to read, plant, connect to", f"0 openings in {len(phases)} phases", "-")


INSTALLING = """
import os, sys
os.umask(0)
import json
from flamepy import Runner
if __name__ == "__main__":
    with Runner("private", project=sys.argv[1], installers=[sys.argv[2]], engine="local") as rr:
        print(rr.service(max)(1, 2).get())
"""


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_another_user_finds_nothing_while_dependencies_are_installed(home: Path, installer: str, row: Any):
    project = home / "project"
    project.mkdir(mode=0o700)
    make_wheel(project, "alpha", "1.0")
    (project / "requirements.txt").write_text("./alpha-1.0-py3-none-any.whl\n")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("FLAME_", "UV_", "PIP_", "XDG_"))}
    environment |= {"HOME": str(home), "FLAME_HOST_OFFLINE": "1"}
    looks = 0
    with subprocess.Popen(
        [sys.executable, "-c", INSTALLING, str(project), installer],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment, cwd=project,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        try:
            while process.poll() is None or not looks:
                assert look(home, [], "") == []
                looks += 1
        finally:
            process.kill()
        assert process.returncode == 0, process.stdout.read()
    assert look(home, [], "") == []
    row(f"another uid at umask 0 while {installer} installs", "nothing to read or plant", f"0 openings in {looks + 1} looks", "-")


def _handler_archive(path: Path) -> None:
    from flame_archive_tar.tar import TarGz

    from flame_host.api import Member

    handler = b"from flame_host.handler import create_handler\nhandler = create_handler({'double': lambda value: 2 * value})\n"
    manifest = (
        b'{"version": "1.0", "resources": {"one": {"handler_file": "handler_one.py", "workers": [1, 1]}},'
        b' "function_registry": {"double": "one"}}'
    )
    files = {"flash_manifest.json": manifest, "handler_one.py": handler}
    members = [Member(name, size=len(data), content=data) for name, data in files.items()]
    with path.open("wb") as target:
        TarGz().write(members, target)
    path.chmod(0o600)
