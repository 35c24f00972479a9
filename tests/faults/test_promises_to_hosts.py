"""The promises of docs/explanation/trust.md about packages, storages, secrets and peers: who writes what we read, or asks over a wire."""

from __future__ import annotations

import contextlib
import gzip
import io
import logging
import os
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tarfile
import textwrap
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner, disconnect

from flame_host import Host
from flame_host._packages.directories import ContentStore
from flame_host._packages.project import read_project
from flame_host._packages.survey import read_tree, survey
from flame_host.api import (
    Application,
    CacheError,
    ConfigError,
    FlameError,
    Limits,
    ObjectRef,
    PackageRef,
    Payload,
    Plan,
    ProvisionError,
    SerializationError,
    StoreError,
    without_secrets,
)

SECRET = "correct-horse-battery"


# ---------------------------------------------------------------------------------------------------- 7: files of packages

HEAD = '[project]\nname = "x"\nversion = "1"\n'
LARGE: dict[str, Callable[[], dict[str, str]]] = {
    "a key of 40 000 parts": lambda: {"pyproject.toml": "a." * 40_000 + "a = 1\n"},
    "a table of 40 000 parts": lambda: {"pyproject.toml": "[" + "a." * 40_000 + "a]\n"},
    "keys of 999 parts": lambda: {"pyproject.toml": "".join(f"k{n}" + ".a" * 999 + " = 1\n" for n in range(400))},
    "arrays 50 000 deep": lambda: {"pyproject.toml": HEAD + "x = " + "[" * 50_000 + "]" * 50_000},
    "tables 50 000 deep": lambda: {"pyproject.toml": HEAD + "x = " + "{a = " * 50_000 + "1" + "}" * 50_000},
    "nested by 5 000 lines": lambda: {"pyproject.toml": HEAD + "dependencies = " + "[\n" * 5000 + "]\n" * 5000},
    "a number of 200 000 digits": lambda: {"pyproject.toml": HEAD + "x = " + "9" * 200_000},
    "200 MB": lambda: {"pyproject.toml": HEAD + "#" * (200 << 20)},
    "names that are no tables": lambda: {"pyproject.toml": "project = 1\n"},
    "tools that are no tables": lambda: {"pyproject.toml": "tool = 1\n" + HEAD},
    "dependencies that are no list": lambda: {"pyproject.toml": HEAD + "dependencies = 3\n"},
    "extras that are no table": lambda: {"pyproject.toml": HEAD + "optional-dependencies = 3\n[tool.flame]\nextras = ['a']\n"},
    "groups that are no list": lambda: {"pyproject.toml": HEAD + "[dependency-groups]\na = 1\n[tool.flame]\ngroups = ['a']\n"},
    "a group that includes a list": lambda: {
        "pyproject.toml": HEAD + "[dependency-groups]\na = [{include-group = [1]}]\n[tool.flame]\ngroups = ['a']\n"
    },
    "bytes that are no text": lambda: {"pyproject.toml": HEAD + "\udcff"},
    "requirements that name each other 100 times": lambda: {
        f"requirements{n or ''}.txt": f"-r requirements{n + 1}.txt\n" for n in range(100)
    },
    "requirements outside": lambda: {"requirements.txt": "-r ../../../etc/passwd\n"},
    "constraints outside": lambda: {"requirements.txt": "--constraint=/etc/passwd\n"},
    "an editable outside": lambda: {"requirements.txt": "-e ../..\n"},
    "requirements outside, one file on": lambda: {"requirements.txt": "-rmore/a.txt\n", "more/a.txt": "-c ../../outside.txt\n"},
    "a script's header without end": lambda: {"script.py": "# /// script\n" + "# x = 1\n" * 50_000},
}


@pytest.mark.parametrize("what", LARGE)
def test_a_projects_files_cost_no_more_than_they_may(tmp_path: Path, what: str, row: Any):
    for name, text in LARGE[what]().items():
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, errors="surrogateescape")
    used = resource.getrusage(resource.RUSAGE_SELF)
    with pytest.raises(ConfigError) as caught:
        read_project(tmp_path / "tree")
    now = resource.getrusage(resource.RUSAGE_SELF)
    assert len(str(caught.value)) < 3000
    assert now.ru_utime - used.ru_utime < 5
    assert now.ru_maxrss - used.ru_maxrss < 300 << 10  # KiB
    row(f"project with {what}", "ConfigError at once", "ConfigError", f"{(now.ru_maxrss - used.ru_maxrss) >> 10} MiB")


BUILT = '[project]\nname = "x"\ndynamic = ["version"]\n[build-system]\nrequires = []\nbuild-backend = "x"\n'
HATCH = BUILT + '[tool.hatch.version]\npath = "v.py"\n'
WORKSPACE = (
    HEAD + 'dependencies = ["m"]\n[tool.uv.sources]\nm = {workspace = true}\n[tool.uv.workspace]\nmembers = ["' + "**/" * 30 + 'm"]\n'
)
SLOW: dict[str, Callable[[], dict[str, str]]] = {
    "a pattern that never ends": lambda: {"v.py": "a" * 60 + "!\n", "pyproject.toml": HATCH + "pattern = '(a+)+$'\n"},
    "members at any depth, thirty times": lambda: {"pyproject.toml": WORKSPACE, "/".join("d" * 60) + "/a.txt": ""},
}


@pytest.mark.parametrize("what", SLOW)
def test_reading_a_project_ends_when_its_time_is_up(tmp_path: Path, what: str, row: Any, helpers: Any):
    for name, text in SLOW[what]().items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    with pytest.raises(ConfigError, match="took longer than 1 s and was stopped"):
        survey(tmp_path, seconds=1.0)
    assert helpers.descendants() == []
    row(f"project with {what}", "ConfigError at the deadline", "ConfigError", "no process left")


def test_what_takes_longer_is_read_all_the_same(tmp_path: Path):
    (tmp_path / "v.py").write_text("V = '3.4'\n")
    (tmp_path / "pyproject.toml").write_text(HATCH + "pattern = 'V = .(?P<version>[0-9.]+)'\n")
    (tmp_path / "requirements.txt").write_text("# x\n" * 100_000)
    assert survey(tmp_path)["metadata"]
    assert [path.name for path in (tmp_path / ".flame").iterdir()] == ["x-3.4.dist-info"]
    (tmp_path / "pyproject.toml").write_text(HATCH + "pattern = '('\n")
    with pytest.raises(ConfigError, match="pattern of the version"):
        survey(tmp_path)


@pytest.mark.parametrize("line", ["-e " + "[" * 500_000, "./" + "[" * 500_000 + "]", "x @ ./" + "[" * 500_000])
def test_no_line_of_requirements_takes_the_square_of_its_length(tmp_path: Path, line: str):
    (tmp_path / "requirements.txt").write_text(line + "\n")
    used = resource.getrusage(resource.RUSAGE_SELF).ru_utime
    with contextlib.suppress(ConfigError):
        read_tree(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_utime - used < 5


@pytest.mark.parametrize("name", ["/{outside}", "../../{outside}", "a/b", "a\\nb", "-", "x" * 300])
def test_the_name_of_a_project_is_no_path(tmp_path: Path, name: str, row: Any):
    """Its metadata, entry points among it, is written to a directory of that name."""
    name = name.replace("/{outside}", f"{tmp_path}/outside").replace("{outside}", "outside")
    text = f'[project]\nname = "{name}"\nversion = "1"\nentry-points = {{flame_host = {{evil = "evil"}}}}\n'
    archive = tmp_path / "project.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path, content in {"pyproject.toml": text + "[build-system]\nrequires = []\nbuild-backend = 'x'\n", "evil.py": ""}.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    with pytest.raises(FlameError):
        Host(root=tmp_path / "root", offline=True).provision(Application("named", package=PackageRef(archive.as_uri(), "", 0, "tar.gz")))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["project.tar.gz", "root"]
    assert not list((tmp_path / "root").rglob("entry_points.txt"))
    row(f"project called {name[-20:]!r}", "refused, nothing written", "refused", "-")


def test_metadata_is_written_to_no_place_and_read_from_no_file_that_a_package_chose(tmp_path: Path):
    tree = tmp_path / "tree"
    (tree / ".flame" / "x-7.1.dist-info").mkdir(parents=True)
    (tmp_path / "outside").write_text("7.1")
    (tree / "own.py").write_text("untouched")
    (tree / ".flame" / "x-7.1.dist-info" / "METADATA").symlink_to("../../own.py")
    (tree / "pyproject.toml").write_text(BUILT + "[tool.setuptools.dynamic]\nversion = {file = '../outside'}\n")
    assert not survey(tree)["metadata"], "the version stands outside"
    (tree / "VERSION").write_text("7.1")
    (tree / "pyproject.toml").write_text(BUILT + "[tool.setuptools.dynamic]\nversion = {file = 'VERSION'}\n")
    for place in ("a file", "a link"):
        assert survey(tree)["metadata"]
        assert (tree / "own.py").read_text() == "untouched"
        assert "Version: 7.1" in (tree / ".flame" / "x-7.1.dist-info" / "METADATA").read_text()
        shutil.rmtree(tree / ".flame")
        (tree / ".flame").write_text("") if place == "a file" else (tree / ".flame").symlink_to("elsewhere")
    assert survey(tree)["metadata"]


def test_what_is_long_in_a_package_is_short_in_an_error():
    message = str(ConfigError("x" * (10 << 20)))
    assert len(message) < 70_000
    assert "characters left out" in message


@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x]\n" + "".join(f"{chr(98 + n)}: &{chr(98 + n)} [*{chr(97 + n)}, *{chr(97 + n)}]\n" for n in range(25)),
        "clusters: &a [x]\n" + "current-cluster: " + "[" * 5000 + "]" * 5000,
        "clusters: 1\n", "clusters: [1]\n", "clusters: {a: 1}\n",
        "- 1\n", "? [a]\n: b\n", "clusters: 2001-99-99\n", "a: !!python/object:os.x 1\n",
        "clusters: &a {a: {cluster: *a}}\n", "x" * (2 << 20),
    ],
)  # fmt: skip
def test_a_flame_yaml_of_somebody_else_ends_in_one_error(tmp_path: Path, text: str):
    from flamepy import FlameContext

    (tmp_path / "flame.yaml").write_text(text)
    with pytest.raises(ConfigError) as caught:
        FlameContext(tmp_path / "flame.yaml")
    assert len(str(caught.value)) < 3000


# ---------------------------------------------------------------------------------------------------- 9: secrets


def test_environments_show_in_no_repr():
    from flame_host.wire.envelope import SessionOrder

    application = Application("app", environments={"TOKEN": SECRET})
    order = SessionOrder(Payload("cloudpickle/1", b""), environments={"TOKEN": SECRET})
    assert SECRET not in repr(application) + repr(order) + str(application)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        (f"https://me:{SECRET}@host/x", "https://***@host/x"),
        (f"https://{SECRET}@host/x and http://b:{SECRET}@c", "https://***@host/x and http://***@c"),
        (f"https://host/x?sig={SECRET}&n=1#f", "https://host/x?sig=***&n=***#f"),
        (f"pkg @ git+https://{SECRET}@host/r.git@main", "pkg @ git+https://***@host/r.git@main"),
        (f"s3://b/k?X-Amz-Signature={SECRET}, then", "s3://b/k?X-Amz-Signature=*** then"),
        ("git+ssh://git@host/r", "git+ssh://git@host/r"),
        ("file:///a/b@c", "file:///a/b@c"),
        ("plain text with a:b@c", "plain text with a:b@c"),
        ("is it so? a=b", "is it so? a=b"),
        (f"broken: /x.whl?token={SECRET}", "broken: /x.whl?token=***"),
    ],
)
def test_urls_are_shown_without_what_only_the_server_should_see(text: str, shown: str):
    assert without_secrets(text) == shown
    assert SECRET not in str(StoreError(text, hint=text)) + repr(PackageRef(text, "", 0, ""))


def test_a_url_with_a_password_is_asked_and_neither_logged_nor_told(tmp_path: Path, caplog: pytest.LogCaptureFixture, row: Any):
    caplog.set_level(0)
    host = Host(root=tmp_path / "root", offline=True)
    url = f"http://me:{SECRET}@127.0.0.1:9/x.tar.gz?token={SECRET}"
    with pytest.raises(FlameError) as caught:
        Host(root=tmp_path / "root", fetch_seconds=1.0, offline=True).provision(Application("app", PackageRef(url, "ab" * 32, 0, "tar.gz")))
    assert SECRET not in str(caught.value) + caplog.text
    assert host.root.is_dir()
    left = subprocess.run(["grep", "-rl", SECRET, str(tmp_path / "root")], capture_output=True, text=True, check=False)
    assert left.stdout == ""
    row("password and token in a package's URL", "in no log, error or file", "0 mentions", "-")


def test_credentials_come_from_netrc_and_only_from_one_that_is_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: Any, row: Any
):
    from base64 import b64encode
    from http.server import BaseHTTPRequestHandler, HTTPServer
    from threading import Thread

    from flame_fetch_http.http_store import HttpStore

    seen: list[str] = []

    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(self.headers.get("Authorization", ""))
            self.send_response(200)
            self.send_header("Content-Length", "1")
            self.end_headers()
            self.wfile.write(b"x")

        def log_message(self, *args: object) -> None:
            pass

    caplog.set_level(0)
    monkeypatch.setenv("HOME", str(tmp_path))
    netrc = tmp_path / ".netrc"
    netrc.write_text(f"machine 127.0.0.1 login me password {SECRET}\n")
    with HTTPServer(("127.0.0.1", 0), Server) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/x"
        netrc.chmod(0o644)
        with pytest.raises(StoreError, match="others may read"):
            HttpStore().fetch(url, tmp_path / "one", size_limit=10, deadline=10)
        assert seen == []
        netrc.chmod(0o600)
        HttpStore().fetch(url + f"?sig={SECRET}", tmp_path / "two", size_limit=10, deadline=10)
        HttpStore().fetch(url.replace("//", "//you:other@"), tmp_path / "three", size_limit=10, deadline=10)
        server.shutdown()
    basic = ["Basic " + b64encode(pair.encode()).decode() for pair in (f"me:{SECRET}", "you:other")]
    assert seen == basic
    assert SECRET not in caplog.text
    row("~/.netrc", "read if private", "read; refused at 0644", "in no log")


NAMES = [
    ".env", ".env.production", "prod.env", ".envrc", "id_rsa", "id_ed25519", "deploy_rsa", "server.key", "cert.pem", "cert.p12",
    "cert.pfx", "app.jks", "app.keystore", ".netrc", "_netrc", ".pypirc", ".npmrc", ".yarnrc.yml", ".git-credentials", ".htpasswd",
    "htpasswd", ".pgpass", ".my.cnf", ".aws/credentials", ".azure/accessTokens.json", "service-account.json",
    ".config/gcloud/application_default_credentials.json", "my-service-account.json", "serviceAccountKey.json",
    "client_secret_1.json", "credentials.json", "credentials.yml", "credentials", "nested/credentials", ".kube/config", "kubeconfig",
    "prod.kubeconfig", "admin.conf", ".docker/config.json", ".dockercfg", ".dockerconfigjson", "terraform.tfstate",
    "terraform.tfstate.backup", "prod.tfvars", "prod.auto.tfvars.json", ".terraformrc", ".vault-token", ".vault_pass.txt",
    "secrets.yaml", "secrets.yml", "secrets.json", "secrets.toml", ".streamlit/secrets.toml", ".bash_history", ".python_history",
    "wallet.dat", "kaggle.json", ".databrickscfg", ".boto", ".s3cfg", "rclone.conf", "clouds.yaml", "token.json", "token.pickle",
    "x.kdbx", "x.gpg", "x.asc", "x.ppk", ".ssh/config", ".gnupg/x", "master.key", "x.ovpn", "x.keytab", "pip.conf", ".pip/pip.conf",
    "auth.json", ".m2/settings.xml", "google-services.json", "x-firebase-adminsdk-1.json", "rootkey.csv", "me_accessKeys.csv",
    ".chef/client.rb", ".huggingface/token", ".vagrant/key", ".cargo/credentials.toml", ".gem/credentials",
]  # fmt: skip
CODE = [
    "secrets.py", "credentials.py", "app/credentials/__init__.py", "chat_history/log.py", "token.py", "data.json", "config.yaml",
    "src/kube/config.py",
]  # fmt: skip


def test_no_file_with_a_well_known_secret_name_is_packed_but_by_an_explicit_include(tmp_path: Path, caplog: Any, row: Any):
    from flamepy._package.selection import collect_files, explain

    for name in (*NAMES, *CODE):
        path = tmp_path / "project" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    (tmp_path / "project" / "nested" / ".gitignore").write_text("!*\n!credentials\n")
    (tmp_path / "project" / ".flameignore").write_text("!.env\n!*.pem\n")
    packed = collect_files(tmp_path / "project", excludes=["!*.key"])
    assert [name for name in NAMES if name in packed] == []
    assert [name for name in CODE if name not in packed] == []
    assert "look like secrets" in caplog.text
    told = [decision for decision in explain(tmp_path / "project") if decision.secret]
    assert all(any((name + "/").startswith(decision.path) or name == decision.path for decision in told) for name in NAMES)
    assert "cert.pem" in collect_files(tmp_path / "project", includes=["cert.pem"])
    row(f"{len(NAMES)} well-known names of secrets", "not packed, all named", "0 packed", f"{len(CODE)} of {len(CODE)} sources packed")


# ---------------------------------------------------------------------------------------------------- 10, 12: directories


def test_an_archive_may_hold_the_stores_own_names_and_nothing_comes_of_it(tmp_path: Path, row: Any):
    store = ContentStore(tmp_path)

    def build(target: Path) -> None:
        (target / ".complete").write_text('{"facts": {"python": "/evil"}, "made": 1}')
        raise ProvisionError("cut off")

    with pytest.raises(ProvisionError):
        store.ensure("envs", "ab" * 32, build)
    half = tmp_path / "envs" / ("cd" * 32)
    half.mkdir(parents=True, mode=0o700)
    (half / ".complete").write_text('{"facts": {"python": "/evil"}, "made": 1}')
    assert store.find("envs", "cd" * 32) is None
    assert store.ensure("envs", "cd" * 32, lambda target: {"python": "ours"}).facts == {"python": "ours"}
    row("an archive with a .complete in it", "a file as any other", "not taken for the marker", "-")


def test_what_broken_packages_leave_does_not_pile_up(tmp_path: Path, row: Any):
    store = ContentStore(tmp_path)

    def fail(target: Path) -> None:
        (target / "large").write_bytes(bytes(1 << 20))
        raise OSError("no luck")

    for number in range(20):
        with pytest.raises(OSError, match="no luck"):
            store.ensure("envs", f"{number:064x}", fail)
    kept = len(list((tmp_path / "trash").iterdir()))
    assert kept <= 4
    row("20 broken builds", "trash is bounded", f"{kept} directories kept", "-")


def test_headers_cost_memory_in_proportion_to_the_archive(tmp_path: Path, row: Any):
    """In a process of its own, whose peak is its own."""
    program = """
        import re, sys
        from flame_archive_tar.tar import TarGz
        from flame_host.api import ArchiveLimitError, Limits
        peak = lambda: int(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])  # getrusage counts the parent's, too
        before = peak()
        try:
            list(TarGz().read(open(sys.argv[1], "rb"), Limits()))
        except ArchiveLimitError as error:
            print(peak() - before)
        """
    block = bytearray(b"x".ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + b"01440000000\0" + b"00000000000\0" + b" " * 8 + b"x")
    block = block.ljust(257, b"\0") + b"ustar\x0000"
    block = block.ljust(512, b"\0")
    block[148:156] = b"%06o\0 " % sum(block)
    (tmp_path / "bomb.tar.gz").write_bytes(gzip.compress(bytes(block) + bytes(250 << 20), 9))
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "bomb.tar.gz")], capture_output=True, text=True, timeout=60
    )
    grown = int(done.stdout or "999999999") >> 10
    assert grown < 64, (grown, done.stderr)
    row("archive that announces 200 MiB of headers", "memory bounded", "ArchiveLimitError", f"{grown} MiB")


def test_a_root_inside_a_project_is_not_packed(tmp_path: Path, row: Any):
    from flame_archive_tar.tar import TarGz
    from flamepy._package.pack import pack

    project = tmp_path / "project"
    root = project / "cache [1]" / "root"
    (root / "trees").mkdir(parents=True)
    (root / "trees" / "huge").write_text("x")
    (project / "code.py").write_text("x")
    made = [pack(project, TarGz(), root / "packs", includes=["cache*", "huge"]) for _ in range(2)]
    assert [pack.files for pack in made] == [1, 1]
    row("the host's root inside the project", "not packed", "1 file packed", "-")


@pytest.mark.parametrize("what", ["fifo", "device", "socket", "directory"])
def test_what_is_no_file_in_a_storage_or_cache_is_an_error_at_once(tmp_path: Path, what: str, row: Any, monkeypatch: pytest.MonkeyPatch):
    from flame_cache_local.directory import DirectoryStore
    from flame_fetch_file.file_store import FileStore

    monkeypatch.setenv("FLAME_CACHE_KEY", "11" * 32)
    storage = tmp_path / "storage"
    storage.mkdir()
    cache = DirectoryStore(str(tmp_path / "cache"))
    ref = cache.put("app/session/one", Payload("msgpack/1", b"x"))
    stored = next((tmp_path / "cache").rglob("*.object"))
    stored.unlink()
    listener = socket.socket(socket.AF_UNIX)
    for path in (storage / "package.tar.gz", stored):
        if what == "fifo":
            os.mkfifo(path)
        elif what == "directory":
            path.mkdir()
        elif what == "socket":
            listener = socket.socket(socket.AF_UNIX)
            monkeypatch.chdir(path.parent)
            listener.bind(path.name)
        else:
            try:
                os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 5))
            except PermissionError:
                pytest.skip("cannot make a device")
    source = tmp_path / "source"
    source.write_bytes(b"x")
    url = (storage / "package.tar.gz").as_uri()
    begun = time.monotonic()
    with pytest.raises(StoreError):
        FileStore().fetch(url, tmp_path / "target", size_limit=10, deadline=5)
    with pytest.raises(StoreError):
        FileStore().publish(source, storage.as_uri(), name="package.tar.gz", digest="ab" * 32)
    with pytest.raises(CacheError):
        cache.get(ref)
    listener.close()
    assert time.monotonic() - begun < 60  # none of them waited
    row(f"{what} in a storage and a cache", "error at once", "StoreError, CacheError", "-")


def test_an_error_of_a_task_is_no_larger_than_anybody_reads(runner: Runner, row: Any):
    from flamepy import FlameError as Error

    def fail() -> None:
        error = ValueError("x" * (40 << 20))
        error.payload = b"y" * (40 << 20)  # type: ignore[attr-defined]
        raise error

    with pytest.raises(Exception, match="characters left out") as caught:
        runner.service(fail)().get(60)
    assert len(str(caught.value)) < 1 << 20
    assert Error is not None
    row("exception with 80 MB in it", "bounded", f"{len(str(caught.value)) >> 10} KiB", "type, head and tail are told")


# ---------------------------------------------------------------------------------------------------- 11, 13: peers


def test_an_instances_socket_is_private_whatever_the_umask_and_states_are_checked(tmp_path: Path, row: Any):
    from flame_host.wire.client import InstanceClient
    from flame_host.wire.contexts import ApplicationContext, SessionContext, TaskContext
    from flame_host.wire.instance import InstanceServer

    calls: list[str] = []

    class Service:
        def on_session_enter(self, context: SessionContext) -> None:
            calls.append(context.session_id)

        def on_task_invoke(self, context: TaskContext) -> bytes:
            calls.append(context.task_id)
            return b"done"

        def on_session_leave(self) -> None:
            calls.append("left")

    previous = os.umask(0)
    try:
        server = InstanceServer(Service(), tmp_path / "s.sock")
        server.start()
    finally:
        os.umask(previous)
    try:
        assert stat.S_IMODE((tmp_path / "s.sock").stat().st_mode) == 0o700
        assert [path.name for path in tmp_path.iterdir()] == ["s.sock"]
        with InstanceClient(tmp_path / "s.sock") as client:
            refused = [client.invoke("one", "before")]
            assert client.enter("one", ApplicationContext("app")).ok
            refused.append(client.invoke("two", "of another"))
            assert client.invoke("one", "task").output == b"done"
            assert client.leave().ok
            refused.append(client.invoke("one", "after"))
        assert all("not entered" in answer.message for answer in refused)
        assert calls == ["one", "task", "left"]
    finally:
        server.stop()
    assert list(tmp_path.iterdir()) == []
    row("instance socket at umask 0; tasks out of turn", "0700; refused", "0700; 3 of 3 refused", "1 of 1 in turn run")


@pytest.mark.parametrize(
    "version",
    ["/tmp/evil/python", "../python", "--help", "-c", "3.11; rm", "python", "3.11 ", "3.x", "cpython@3.11", "3.11\n", "9" * 500 + "x"],
)
def test_a_peer_asks_for_a_version_of_python_and_neither_a_path_nor_an_option(version: str):
    from flame_host.wire.envelope import SessionOrder, decode_session, encode_session

    with pytest.raises(SerializationError, match="Python"):
        decode_session(encode_session(SessionOrder(Payload("msgpack/1", b""), Plan(), python_version=version)))
    if not version.startswith("/"):
        with pytest.raises(ConfigError, match="Python"):
            Application("app", python_version=version)


@pytest.mark.parametrize("where", [".python-version", "requires-python"])
def test_a_package_names_no_interpreter_by_its_path(tmp_path: Path, where: str, row: Any):
    evil = tmp_path / "evil"
    evil.write_text(f"#!/bin/sh\ntouch {tmp_path}/ran\n")
    evil.chmod(0o755)
    pinned = f"{evil}\n" if where == ".python-version" else ""
    project = HEAD + (f'requires-python = "{evil}"\n' if where == "requires-python" else "")
    archive = tmp_path / "project.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        for path, content in {"pyproject.toml": project, ".python-version": pinned}.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
    with pytest.raises(FlameError, match="asks for the interpreter"):
        Host(root=tmp_path / "root", offline=True).provision(Application("pinned", package=PackageRef(archive.as_uri(), "", 0, "tar.gz")))
    assert not (tmp_path / "ran").exists()
    row(f"a path as {where} of a package", "refused, not run", "refused, not run", "-")


@pytest.mark.parametrize("version", ["", "3", "3.12", "3.12.1", "python3.11", "3.13t", ">=3.10", ">=3.10,<3.13", "~=3.11", "==3.11.*"])
def test_versions_of_python_that_are_meant_pass(version: str):
    assert Application("app", python_version=version).python_version == version


@pytest.mark.parametrize("name", ["../x", "a/b", "", ".", "..", "-x", "a..b", "a" * 300, "a\n"])
def test_the_name_of_an_application_names_no_directory_elsewhere(name: str):
    with pytest.raises(ConfigError, match="name"):
        Application(name)


def test_a_reference_from_the_wire_opens_no_directory_that_is_no_cache(tmp_path: Path, row: Any):
    from flame_host.wire.hosting.objects import Objects

    objects = Objects(Host(root=tmp_path / "root"), "local")
    for endpoint in ((tmp_path / "elsewhere").as_uri(), "FILE:///tmp/elsewhere", "file:relative"):
        with pytest.raises(CacheError, match="no cache of this machine"):
            objects.get(ObjectRef(endpoint, "a/b/c"))
    assert not (tmp_path / "elsewhere").exists()
    row("a reference to a directory of the peer's choice", "refused", "CacheError", "not made, not changed")


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_builds_can_be_denied(tmp_path: Path, installer: str, offline_host: Path, row: Any):
    from flame_archive_tar.tar import TarGz

    from flame_host.api import Member

    marker = tmp_path / "built"
    setup = f"import pathlib\npathlib.Path({str(marker)!r}).touch()\nfrom setuptools import setup\nsetup(name='x', version='1')\n".encode()
    archive = tmp_path / "x.tar.gz"
    with archive.open("wb") as target:
        TarGz().write([Member("setup.py", size=len(setup), content=setup)], target)
    package = PackageRef(archive.as_uri(), "", 0, "tar.gz")
    sdist = tmp_path / "dep-1.tar.gz"
    about = b"Metadata-Version: 2.1\nName: dep\nVersion: 1\n"
    with sdist.open("wb") as target:
        TarGz().write([Member(f"dep-1/{n}", size=len(c), content=c) for n, c in (("PKG-INFO", about), ("setup.py", setup))], target)
    for policy in ({"builds": "deny"}, {}):
        host = Host(policy={} if policy else {"builds": "deny"})
        plan = Plan(installer=installer, policy=policy)
        with pytest.raises(ProvisionError, match="builds = deny"):
            host.provision(Application("app", package, plan=plan))
        with pytest.raises(ProvisionError):
            host.provision(Application("app", plan=plan, dependencies=(f"dep @ {sdist.as_uri()}",)))
    assert not marker.exists()
    row(f"policy builds = deny, {installer}", "nothing is built", "ProvisionError; setup.py did not run", "-")


# ---------------------------------------------------------------------------------------------------- low


@pytest.mark.parametrize(
    "url", ["http://[::1", "http://h:port/", "file://[x", "s3://[x/k", "http://\x00/", "http:///x", "file:///a\x00b", "http://é" * 99]
)
def test_an_odd_url_is_a_typed_error(tmp_path: Path, url: str):
    host = Host(root=tmp_path / "root", fetch_seconds=1.0)
    with pytest.raises(FlameError):
        host.provision(Application("app", PackageRef(url, "ab" * 32, 0, "tar.gz")))


def test_an_object_of_another_cache_or_of_an_earlier_time_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, row: Any):
    import shutil

    from flame_cache_local.directory import DirectoryStore

    monkeypatch.setenv("FLAME_CACHE_KEY", "11" * 32)
    here, there = DirectoryStore(str(tmp_path / "here")), DirectoryStore(str(tmp_path / "there"))
    ref = here.put("app/session/one", Payload("msgpack/1", b"first"))
    file = next((tmp_path / "here").rglob("*.object"))
    other = there.put("app/session/one", Payload("msgpack/1", b"second"))
    shutil.copy(file, next((tmp_path / "there").rglob("*.object")))
    with pytest.raises(CacheError, match="signature"):
        there.get(other)
    shutil.copy(file, tmp_path / "kept")
    here.update(ref, Payload("msgpack/1", b"later"))
    newest = ObjectRef(here.endpoint, ref.key, 0)
    assert here.get(newest).data == b"later"
    shutil.copy(tmp_path / "kept", file)
    with pytest.raises(CacheError, match="earlier"):
        here.get(newest)
    row("stored object copied from another cache, put back to an earlier one", "refused", "CacheError", "-")


def test_logging_is_left_as_it_was():
    import flame_fetch_http.transfer  # noqa: F401

    assert logging.getLogger("httpx").level == logging.NOTSET
    assert Limits().ratio == 200
    disconnect()


@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_token_in_a_dependencys_url_shows_in_no_list_of_processes_log_or_listing(
    tmp_path: Path, installer: str, offline_host: Path, row: Any
):
    import threading

    seen: list[bytes] = []
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.01):
            for entry in Path("/proc").iterdir():
                if entry.name.isdigit():
                    try:
                        seen.append((entry / "cmdline").read_bytes())
                    except OSError:
                        continue

    watcher = threading.Thread(target=watch)
    watcher.start()
    host = Host(root=tmp_path / "root")
    url = f"http://me:{SECRET}@127.0.0.1:9/flametestdep-1.0-py3-none-any.whl?token={SECRET}"
    with pytest.raises(ProvisionError) as caught:
        host.provision(Application("app", plan=Plan(installer=installer), dependencies=(f"flametestdep @ {url}",)))
    over.set()
    watcher.join()
    assert any(installer.encode() in line for line in seen)
    assert not any(SECRET.encode() in line for line in seen)
    assert SECRET not in str(caught.value)
    left = subprocess.run(["grep", "-rl", SECRET, str(tmp_path / "root")], capture_output=True, text=True, check=False)
    assert left.stdout == ""
    row(f"token in a dependency's URL, {installer}", "in no list, log or file", "0 mentions", "-")


@pytest.mark.parametrize("requirement", ["--index-url=http://evil", "-r /etc/passwd", "a\n--index-url http://evil", "", "# a", "a\x00b"])
@pytest.mark.parametrize("installer", ["uv", "pip"])
def test_a_requirement_is_data(tmp_path: Path, installer: str, requirement: str, offline_host: Path):
    with pytest.raises(ProvisionError, match="no requirement"):
        Host(root=tmp_path / "root").provision(Application("app", plan=Plan(installer=installer), dependencies=(requirement,)))
