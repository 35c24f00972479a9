"""Unpacking in a child: what it survives, what it tells, and which archiver is asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from flame_archive_tar.tar import Tar, TarGz, TarXz
from flame_archive_zip.zip import Zip

from flame_host import api
from flame_host._packages.unpack import contract
from flame_host._packages.unpack.parent import recognise, unpack
from flame_host.api import ArchiveError, ArchiveLimitError, Limits, Member, MemberKind, PluginError

PLUGIN = """
import os, sys, time
from flame_host.api import Member, hookimpl

class Slow:
    name, suffixes, magic = "slow", (".slow",), ((0, b""),)
    def read(self, source, limits):
        yield Member("pid", size=10, content=b"%010d" % os.getpid())
        while True:
            time.sleep(0.01)

class Crash(Slow):
    name = "crash"
    def read(self, source, limits):
        os.abort()

class Chatty(Slow):
    name = "chatty"
    def read(self, source, limits):
        print('{"count": 99, "bytes": 99}', flush=True)
        yield Member("f", size=1, content=b"x")

class Broken(Slow):
    name = "broken"
    def read(self, source, limits):
        yield Member("f", size=1, content=b"x")
        raise ZeroDivisionError("a bug in the plugin")

class Greedy(Slow):
    name = "greedy"
    def read(self, source, limits):
        yield Member("f", size=1, content=b"x" * (8 << 30))

class Lying(Slow):
    name = "lying"
    def read(self, source, limits):
        yield Member("f", size=1, content=iter([b"x" * 100] * 100))

class WithArgument(Slow):
    name = "argument"
    def __init__(self, level):
        self.level = level
    def read(self, source, limits):
        yield Member("f", size=self.level, content=b"x" * self.level)

@hookimpl
def flame_archivers():
    return [Slow(), WithArgument(3)]
"""


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module only this test's path knows."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "odd_plugin.py").write_text(PLUGIN)
    monkeypatch.syspath_prepend(tmp_path / "path")
    (tmp_path / "archive").write_bytes(b"anything")
    return "odd_plugin"


def alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


def test_a_reader_that_never_ends_is_killed_at_the_deadline(plugin: str, tmp_path: Path) -> None:
    begun = time.monotonic()
    with pytest.raises(ArchiveLimitError) as caught:
        unpack(tmp_path / "archive", tmp_path / "tree", f"{plugin}:Slow", Limits(seconds=0.6))
    assert caught.value.budget == "seconds"
    assert time.monotonic() - begun < 5
    assert not alive(int((tmp_path / "tree" / "pid").read_text()))


def test_a_child_ends_with_a_parent_that_was_killed(plugin: str, tmp_path: Path) -> None:
    program = f"""
        import sys
        from pathlib import Path
        from flame_host._packages.unpack.parent import unpack
        from flame_host.api import Limits
        sys.path.insert(0, {os.fspath(tmp_path / "path")!r})
        unpack(Path({os.fspath(tmp_path / "archive")!r}), Path({os.fspath(tmp_path / "tree")!r}), "{plugin}:Slow", Limits(seconds=60))
    """
    parent = subprocess.Popen([sys.executable, "-c", textwrap.dedent(program)])
    written = tmp_path / "tree" / "pid"
    deadline = time.monotonic() + 20
    while not (written.exists() and written.stat().st_size == 10) and time.monotonic() < deadline:
        time.sleep(0.01)
    pid = int(written.read_text())
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not alive(pid)


def test_a_reader_that_crashes_costs_only_its_process(plugin: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="ended without an answer"):
        unpack(tmp_path / "archive", tmp_path / "tree", f"{plugin}:Crash", Limits())


def test_a_bug_in_a_reader_is_an_archive_error_that_names_it(plugin: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match=r"odd_plugin:Broken failed: ZeroDivisionError: a bug in the plugin"):
        unpack(tmp_path / "archive", tmp_path / "tree", f"{plugin}:Broken", Limits())


def test_a_reader_that_needs_too_much_memory_is_over_a_budget(plugin: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveLimitError) as caught:
        unpack(tmp_path / "archive", tmp_path / "tree", f"{plugin}:Greedy", Limits())
    assert caught.value.budget == "memory"


def test_a_reader_that_gives_more_than_it_says_writes_no_more_than_it_said(plugin: str, tmp_path: Path) -> None:
    with pytest.raises(ArchiveError, match="announced with 1 bytes"):
        unpack(tmp_path / "archive", tmp_path / "tree", f"{plugin}:Lying", Limits())
    assert (tmp_path / "tree" / "f").stat().st_size <= 1


@pytest.mark.parametrize("reference", ["no_such_module:It", "odd_plugin:Nothing"])
def test_an_archiver_that_the_child_cannot_find_is_a_plugin_error(plugin: str, tmp_path: Path, reference: str) -> None:
    with pytest.raises(PluginError):
        unpack(tmp_path / "archive", tmp_path / "tree", reference, Limits())


def test_a_provider_of_a_local_class_is_a_plugin_error(tmp_path: Path) -> None:
    class Local(Tar):
        pass

    (tmp_path / "archive").write_bytes(b"")
    with pytest.raises(PluginError, match="cannot import"):
        unpack(tmp_path / "archive", tmp_path / "tree", Local(), Limits())


def test_an_existing_directory_is_not_unpacked_into(tmp_path: Path) -> None:
    (tmp_path / "archive").write_bytes(b"")
    (tmp_path / "tree").mkdir()
    with pytest.raises(FileExistsError):
        unpack(tmp_path / "archive", tmp_path / "tree", TarGz(), Limits())


def test_what_a_reader_prints_is_no_answer(plugin: str, tmp_path: Path) -> None:
    assert unpack(tmp_path / "archive", tmp_path / "tree", f"{plugin}:Chatty", Limits()).count == 1


def test_a_hook_gives_a_provider_that_takes_arguments(plugin: str, tmp_path: Path) -> None:
    summary = unpack(tmp_path / "archive", tmp_path / "tree", f"{plugin}:flame_archivers", Limits(), name="argument")
    assert (summary.count, summary.bytes) == (1, 3)


def test_modes_do_not_depend_on_the_callers_umask(tmp_path: Path) -> None:
    with (tmp_path / "a.tar").open("wb") as target:
        Tar().write([Member("d/x", size=1, executable=True, content=b"x"), Member("d/f", size=1, content=b"x")], target)
    program = "import os, sys; os.umask(0o077); from pathlib import Path; from flame_host._packages.unpack.parent import unpack; "
    program += "from flame_host.api import Limits; unpack(Path('a.tar'), Path('tree'), 'flame_archive_tar.tar:Tar', Limits())"
    subprocess.run([sys.executable, "-c", program], cwd=tmp_path, check=True)
    assert [oct((tmp_path / "tree" / name).stat().st_mode & 0o777) for name in ("d", "d/x", "d/f")] == ["0o755", "0o755", "0o644"]


def test_threads_may_unpack_at_once(tmp_path: Path) -> None:
    with (tmp_path / "a.tar.gz").open("wb") as target:
        TarGz().write([Member(f"d/{number}", size=1, content=b"x") for number in range(20)], target)
    counts: list[int] = []
    threads = [
        threading.Thread(target=lambda n=n: counts.append(unpack(tmp_path / "a.tar.gz", tmp_path / f"t{n}", TarGz(), Limits()).count))
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [20] * 4


@pytest.mark.parametrize("name", ["package", "package.rar", "package.gz", "tar.gz.txt"])
def test_an_unknown_suffix_is_an_archive_error_that_lists_the_known(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x1f\x8b\x08")
    with pytest.raises(ArchiveError, match=r"\.tar\.gz"):
        recognise(tmp_path / name, [TarGz(), Zip()])


def test_a_suffix_that_lies_is_an_archive_error_that_tells_the_truth(tmp_path: Path) -> None:
    path = tmp_path / "package.tar.gz"
    with path.open("wb") as target:
        Zip().write([Member("f")], target)
    with pytest.raises(ArchiveError, match="looks like zip"):
        recognise(path, [TarGz(), Zip()])


def test_the_longest_suffix_decides(tmp_path: Path) -> None:
    class Gz(TarGz):
        name, suffixes = "gz", (".gz",)

    for name in ("package.tar.gz", "PACKAGE.TGZ", "package.tgz"):
        (tmp_path / name).write_bytes(b"\x1f\x8b\x08")
        assert recognise(tmp_path / name, [Gz(), TarGz(), TarXz()]).name == "tar.gz"


def test_the_childs_contract_is_the_contract() -> None:
    assert contract.Member._fields == Member._fields
    assert contract.Member("f") == Member("f")
    assert {kind.name: kind.value for kind in contract.MemberKind} == {kind.name: kind.value for kind in MemberKind}
    for name in ("FlameError", "PackageError", "ArchiveError"):
        light, real = getattr(contract, name)("what", hint="do"), getattr(api, name)("what", hint="do")
        assert (light.message, light.hint) == (real.message, real.hint)
        assert [kind.__name__ for kind in type(light).__mro__] == [kind.__name__ for kind in type(real).__mro__]
    for name, arguments in (("UnsafeArchiveError", ("rule", "member", "what")), ("ArchiveLimitError", ("budget", "what"))):
        light, real = getattr(contract, name)(*arguments), getattr(api, name)(*arguments)
        assert vars(light).items() <= vars(real).items()
        assert [kind.__name__ for kind in type(light).__mro__] == [kind.__name__ for kind in type(real).__mro__]
