"""When the machine runs out of something, or its clock or disk cannot be relied on."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import resource
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from flamepy import Runner

from flame_host._packages.directories import ContentStore
from flame_host.api import CacheError, ConfigError, ObjectNotFoundError, Payload, ProvisionError

KEY = "ab" * 32
MOUNT_POINT_NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="mounts a small tmpfs")


def in_a_child(body: str, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a program of its own, where limits and clocks can be changed."""
    return subprocess.run(
        [sys.executable, "-c", textwrap.dedent(body), *map(str, arguments)],
        capture_output=True, text=True, timeout=60, env={**os.environ, **variables},
    )  # fmt: skip


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MiB."""
    directory = tmp_path / "disk"
    directory.mkdir()
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mount(b"tmpfs", str(directory).encode(), b"tmpfs", 0, b"size=1m") != 0:
        pytest.skip(f"cannot mount: {os.strerror(ctypes.get_errno())}")
    yield directory
    libc.umount2(str(directory).encode(), 2)


# ---------------------------------------------------------------------------------------------------- disk


@MOUNT_POINT_NEEDS_ROOT
def test_a_full_disk_fails_the_building_leaves_nothing_and_works_again_when_there_is_room(small_disk: Path, row: Any):
    store = ContentStore(small_disk)
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(768 << 10))

    def build(target: Path) -> dict[str, str]:
        (target / "content").write_bytes(bytes(512 << 10))
        return {"made": "whole"}

    with pytest.raises(OSError) as caught:
        store.ensure("envs", KEY, build)
    assert caught.value.errno == errno.ENOSPC
    assert store.find("envs", KEY) is None
    ballast.unlink()
    store.empty_trash()
    entry = store.ensure("envs", KEY, build)
    assert entry.facts == {"made": "whole"}
    entry.release()
    row("disk full while an environment is made", "error, nothing half-made", "ENOSPC, nothing half-made", "works when there is room")


@MOUNT_POINT_NEEDS_ROOT
def test_a_disk_that_is_full_to_the_last_byte_still_gives_a_typed_error_from_the_host(small_disk: Path, row: Any):
    from flame_host import Host
    from flame_host.api import Application

    host = Host(root=small_disk / "root", offline=True)
    _ = host.root
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(ProvisionError) as caught:
        host.provision(Application("full"))
    (small_disk / "ballast").unlink()
    row("disk full to the last byte", "ProvisionError", type(caught.value).__name__, "nothing half-made")


@MOUNT_POINT_NEEDS_ROOT
def test_a_full_cache_directory_refuses_the_object_and_keeps_the_others(small_disk: Path, row: Any, faults_home: Path):
    from flame_cache_local.local_cache import LocalCache

    store = LocalCache().open((small_disk / "cache").as_uri())
    kept = store.put("app/session", Payload("raw/1", bytes(100 << 10)))
    with pytest.raises(CacheError, match="space"):
        store.put("app/session", Payload("raw/1", bytes(2 << 20)))
    assert store.get(kept).data == bytes(100 << 10)
    assert store.get(store.put("app/session", Payload("raw/1", b"small"))).data == b"small"
    row("disk full while an object is stored", "CacheError", "CacheError", "2 of 2 objects unharmed")


def test_a_root_that_cannot_be_written_is_named_with_what_to_do(tmp_path: Path, row: Any):
    from flame_host import Host

    (tmp_path / "file").write_text("no directory")
    with pytest.raises(ConfigError, match="FLAME_HOST_ROOT"):
        _ = Host(root=tmp_path / "file" / "root").root
    row("root that cannot be made", "ConfigError", "ConfigError", "says what to set")


@pytest.mark.skipif(os.geteuid() != 0, reason="becomes another user")
def test_a_read_only_root_gives_a_typed_error(tmp_path: Path, row: Any):
    body = """
        import sys
        from pathlib import Path
        import flame_host, flame_host._packages.provisioner, flame_host._packages.support  # as root: the checkout may be closed to others
        from flame_host import Host
        from flame_host.api import Application, FlameError
        host = Host(root=Path(sys.argv[1]), offline=True)
        host.catalog.installer("uv")
        import ctypes
        libc = ctypes.CDLL(None, use_errno=True)
        assert libc.unshare(0x00020000) == 0  # a mount namespace of its own
        assert libc.mount(None, b"/", None, 0x40000 | 0x4000, None) == 0  # private, recursively
        path = sys.argv[1].encode()
        assert libc.mount(path, path, None, 0x1000, None) == 0  # bind
        assert libc.mount(None, path, None, 0x1000 | 0x20 | 0x1, None) == 0  # read-only
        try:
            host.provision(Application("read-only"))
        except FlameError as error:
            print(type(error).__name__, error.stage)
        except BaseException as error:
            print("untyped", repr(error))
        """
    root = tmp_path / "root"
    root.mkdir()
    done = in_a_child(body, root)
    if "assert libc" in done.stderr:
        pytest.skip("mounts are not allowed here")
    assert done.stdout.startswith("ProvisionError install"), done.stdout + done.stderr
    row("read-only root", "ProvisionError", done.stdout.split()[0], "-")


def test_two_processes_on_one_store_build_once(tmp_path: Path, row: Any):
    body = """
        import sys, time
        from pathlib import Path
        from flame_host._packages.directories import ContentStore
        store = ContentStore(Path(sys.argv[1]))
        def build(target):
            with open(sys.argv[2], "a") as file:
                file.write("built\\n")
            time.sleep(0.2)
            (target / "content").write_text("whole")
            return {"content": "whole"}
        for key in (f"{number:064x}" for number in range(5)):
            entry = store.ensure("envs", key, build)
            assert (entry.path / "content").read_text() == "whole"
        """
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    command = [sys.executable, str(script), str(tmp_path / "root"), str(tmp_path / "log")]
    processes = [subprocess.Popen(command) for _ in range(4)]
    assert [process.wait(60) for process in processes] == [0] * 4
    built = len((tmp_path / "log").read_text().split())
    assert built == 5
    row("4 processes on one store", "each directory made once", f"{built} made for 5 keys", "20 of 20 requests served")


def test_a_damaged_marker_means_that_the_directory_is_made_anew(tmp_path: Path, row: Any):
    store = ContentStore(tmp_path)
    for damage in (b"", b"\x00" * 4096, b'{"facts"', b"[]", b"\xff\xfe"):
        store.ensure("envs", KEY, lambda target: {"made": "first"}).release()
        (tmp_path / "markers" / f"envs-{KEY}.json").write_bytes(damage)
        entry = store.ensure("envs", KEY, lambda target: {"made": "anew"})
        assert entry.facts == {"made": "anew"}, damage
        entry.release()
    row("damaged marker of an environment", "made anew", "made anew", "5 of 5 kinds of damage")


# ---------------------------------------------------------------------------------------------------- descriptors, memory


def test_too_few_descriptors_is_a_typed_error_and_passes(tmp_path: Path, row: Any):
    body = """
        import os, resource, sys
        from pathlib import Path
        from flame_host.api import FlameError
        from flame_host.engine.local import LocalConnection
        from flame_host.testing.services import BareServices, Caller
        services = BareServices(Path(sys.argv[1]))
        connection = LocalConnection("local:", services)
        call = Caller(connection, services, lambda n: n, max_instances=1)
        assert call(1).result(20) == 1
        resource.setrlimit(resource.RLIMIT_NOFILE, (len(os.listdir("/proc/self/fd")) + 6, 4096))
        other = Caller(connection, services, lambda n: n, max_instances=1)
        try:
            other(2).result(20)
        except (FlameError, OSError) as error:
            print(type(error).__name__, error)
        assert call(3).result(20) == 3
        resource.setrlimit(resource.RLIMIT_NOFILE, (1024, 4096))
        assert other(4).result(20) == 4
        before = len(os.listdir("/proc/self/fd"))
        connection.close()
        print("works again")
        """
    done = in_a_child(body, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1] == "works again", done.stdout
    row("too many open files in the client", "WorkerStartError", done.stdout.split()[0], "running services go on; works again")
    assert done.stdout.startswith("WorkerStartError"), done.stdout


def test_no_memory_for_a_shared_segment_is_an_error_of_that_call_alone(runner: Runner, row: Any):
    """Segments are anonymous memory (memfd), which no full /dev/shm can touch; what they can lack is memory, or here file size."""
    service = runner.service(lambda n: bytearray(n), max_instances=1, limits={"file_size": 4 << 20})
    assert len(service(2 << 20).get(timeout=30)) == 2 << 20
    with pytest.raises(OSError, match="File too large") as caught:
        service(64 << 20).get(timeout=30)
    assert len(service(3 << 20).get(timeout=30)) == 3 << 20
    row("no room for a shared segment", "error of that call", type(caught.value).__name__, "2 of 2 tasks unharmed")


@MOUNT_POINT_NEEDS_ROOT
def test_a_full_dev_shm_does_not_matter(tmp_path: Path, row: Any):
    body = """
        import ctypes, os, sys
        from pathlib import Path
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.unshare(0x00020000) or libc.mount(None, b"/", None, 0x40000 | 0x4000, None):
            sys.exit(77)
        if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, b"size=4k"):
            sys.exit(77)
        try:
            Path("/dev/shm/ballast").write_bytes(bytes(1 << 20))
        except OSError:
            pass
        from flame_host.engine.local import LocalConnection
        from flame_host.testing.services import BareServices, Caller
        services = BareServices(Path(sys.argv[1]))
        connection = LocalConnection("local:", services)
        assert len(Caller(connection, services, bytearray)(8 << 20).result(20)) == 8 << 20
        connection.close()
        """
    done = in_a_child(body, tmp_path)
    if done.returncode == 77:
        pytest.skip("mounts are not allowed here")
    assert done.returncode == 0, done.stderr
    row("/dev/shm full", "not used: memfd", "8 MB passed through", "-")


# ---------------------------------------------------------------------------------------------------- load


def test_a_hundred_thousand_pending_tasks_are_all_done(runner: Runner, row: Any):
    service = runner.service(lambda n: n, max_instances=2)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    begun = time.monotonic()
    futures = [service(n) for n in range(100_000)]
    assert sum(future.get(timeout=60) for future in futures) == sum(range(100_000))
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 100_000
    row("100,000 pending tasks", "all done", f"in {time.monotonic() - begun:.1f} s, {grown:.1f} KiB a task", "100000 of 100000 right")
    service.close()


# ---------------------------------------------------------------------------------------------------- clock


def test_a_clock_that_jumps_changes_nothing(tmp_path: Path, row: Any):
    """Both ways, by years, in a process whose ``time.time`` is another: time limits and waiting go by the monotonic clock."""
    body = """
        import sys, time
        real, shift = time.time, [0.0]
        time.time = lambda: real() + shift[0]
        from pathlib import Path
        from flame_host._packages.directories import ContentStore
        from flame_host.api import TaskTimeoutError, ProvisionError
        from flame_host.engine.local import LocalConnection
        from flame_host.testing.services import BareServices, Caller
        services = BareServices(Path(sys.argv[1]))
        connection = LocalConnection("local:", services)
        def work(seconds):
            import time
            time.sleep(seconds)
            return seconds
        call = Caller(connection, services, work, timeout=0.5)
        for years in (10, -40, 80):
            task = call(0.2)
            shift[0] += years * 365 * 86400.0
            assert task.result(20) == 0.2
            begun = time.monotonic()
            try:
                call(60).result(20)
            except TaskTimeoutError:
                assert time.monotonic() - begun < 5
            else:
                sys.exit("not stopped")
        store = ContentStore(Path(sys.argv[1], "store"))
        def fail(target): raise ProvisionError("no luck")
        for years in (0, 10, -40):
            shift[0] = years * 365 * 86400.0
            try:
                store.ensure("envs", "ab" * 32, fail)
            except ProvisionError:
                pass
        shift[0] = -50 * 365 * 86400.0  # the failures above lie in the future now
        assert store.ensure("envs", "ab" * 32, lambda target: {"made": "yes"}).facts == {"made": "yes"}
        connection.close()
        """
    done = in_a_child(body, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    row("clock jumps by years, both ways", "nothing changes", "limits kept, no failure remembered", "3 of 3 tasks unharmed")


# ---------------------------------------------------------------------------------------------------- stored objects


@pytest.mark.parametrize("damage", ["cut-off", "bit-flipped", "header-flipped", "emptied", "swapped", "grown-header", "removed"])
def test_a_damaged_object_is_refused_and_the_others_are_not(tmp_path: Path, row: Any, faults_home: Path, damage: str):
    from flame_cache_local.local_cache import LocalCache

    endpoint = (tmp_path / "cache").as_uri()
    store = LocalCache().open(endpoint)
    content = bytes(range(256)) * 64
    reference = store.put("app/session/one", Payload("raw/1", content, (content,)))
    other = store.put("app/session/two", Payload("raw/1", b"another"))
    files = {path.stem: path for path in (tmp_path / "cache").rglob("*.object")}
    path = files["one"]
    data = bytearray(path.read_bytes())
    if damage == "cut-off":
        data = data[: len(data) // 2]
    elif damage == "bit-flipped":
        data[-1] ^= 1
    elif damage == "header-flipped":
        data[60] ^= 1
    elif damage == "emptied":
        data = bytearray()
    elif damage == "swapped":
        data = bytearray(files["two"].read_bytes())
    elif damage == "grown-header":
        data[40:44] = b"\xff\xff\xff\xff"
    path.unlink()
    if damage != "removed":
        path.write_bytes(data)
    fresh = LocalCache().open(endpoint)
    expected = ObjectNotFoundError if damage == "removed" else CacheError
    with pytest.raises(expected) as caught:
        fresh.get(reference)
    assert fresh.get(other).data == b"another"
    row(f"stored object {damage}", expected.__name__, type(caught.value).__name__, "1 of 1 objects unharmed")


def test_two_processes_on_one_cache_lose_no_update(tmp_path: Path, row: Any, faults_home: Path):
    body = """
        import sys
        from flame_cache_local.local_cache import LocalCache
        from flame_host.api import ObjectRef, Payload, VersionConflictError
        store = LocalCache().open(sys.argv[1])
        for _ in range(100):
            while True:
                now = store.get(ObjectRef(sys.argv[1], "app/session/count", 0))
                reference = ObjectRef(sys.argv[1], "app/session/count", 0)
                version, number = now.data.decode().split()
                try:
                    after = f"{int(version) + 1} {int(number) + 1}".encode()
                    store.update(reference, Payload("raw/1", after), if_version=int(version))
                    break
                except VersionConflictError:
                    continue
        """
    from flame_cache_local.local_cache import LocalCache

    from flame_host.api import ObjectRef

    endpoint = (tmp_path / "cache").as_uri()
    store = LocalCache().open(endpoint)
    store.put("app/session/count", Payload("raw/1", b"1 0"))
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(body))
    processes = [subprocess.Popen([sys.executable, str(script), endpoint]) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert store.get(ObjectRef(endpoint, "app/session/count", 0)).data == b"201 200"
    row("2 processes update one object", "no update lost", "200 of 200 counted", "-")
