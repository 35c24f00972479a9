"""What goes into a package, and what must not."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from flamepy import ConfigError, Runner, collect_files, explain
from flamepy._package.pack import Pack, pack

from flame_host import Host

Write = Callable[..., Path]


@pytest.fixture
def packed(project: Path, tmp_path: Path) -> Callable[..., Pack]:
    archiver = Host().catalog.archiver("tar.gz")
    return lambda root=project: pack(root, archiver, tmp_path / "cellar", excludes=(), includes=())


def test_secrets_stay_here_with_a_notice(write: Write, project: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in (".env", ".env.production", "key.pem", "id_rsa", "sub/id_ed25519.pub", ".aws/credentials", ".netrc", "main.py"):
        write(name, "x")
    with caplog.at_level(logging.WARNING):
        assert collect_files(project) == ["main.py"]
    assert ".env.production" in caplog.text
    assert "look like secrets" in caplog.text


def test_a_link_that_leads_out_is_left_out_and_its_target_unread(write: Write, project: Path, tmp_path: Path) -> None:
    (tmp_path / "private").mkdir()
    (tmp_path / "private" / "data").write_text("secret")
    write("main.py")
    os.symlink(tmp_path / "private", project / "out")
    os.symlink("main.py", project / "inside")
    os.symlink("nowhere", project / "dangling")
    os.mkfifo(project / "pipe")
    assert collect_files(project) == ["inside", "main.py"]


@pytest.mark.parametrize("root", ["/", "~"])
def test_a_directory_that_cannot_be_meant_is_refused(root: str) -> None:
    with pytest.raises(ConfigError, match="is not a project"):
        explain(root)


def test_a_project_that_is_not_there_is_refused() -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        explain("nowhere")


def test_version_control_caches_environments_and_the_documents_defaults_are_left_out(write: Write, project: Path) -> None:
    for name in (
        ".git/config", ".venv/x", "__pycache__/a.pyc", "a.pyc", ".gitignore", "env/pyvenv.cfg", "env/lib/x.py", ".mypy_cache/x",
        "node_modules/x", "pkg/__pycache__/b.pyc", "pkg/mod.py",
    ):  # fmt: skip
        write(name)
    assert collect_files(project) == ["pkg/mod.py"]


def test_ignore_files_exclude_and_include_decide_in_that_order(write: Write, project: Path) -> None:
    for name in ("a.log", "b.log", "data/big.bin", "data/small.bin", "sub/c.tmp", "sub/d.txt", "keep.pkl"):
        write(name)
    write(".gitignore", "# comment\n*.log\n/data/\n")
    write("sub/.gitignore", "*.tmp\n")
    write(".flameignore", "!b.log\n")
    files = collect_files(project, excludes=["*.pkl"], includes=["data/small.bin"])
    assert files == ["b.log", "data/small.bin", "sub/d.txt"]
    reasons = {decision.path: decision.reason for decision in explain(project, ["*.pkl"])}
    assert reasons["a.log"] == ".gitignore: *.log"
    assert reasons["data/"] == ".gitignore: /data/"
    assert reasons["sub/c.tmp"] == "sub/.gitignore: *.tmp"
    assert reasons["keep.pkl"] == "exclude: *.pkl"


def test_packing_writes_nothing_into_the_project(write: Write, project: Path, packed: Callable[..., Pack]) -> None:
    write("main.py", "x = 1")
    before = sorted(path.name for path in project.rglob("*"))
    packed()
    assert sorted(path.name for path in project.rglob("*")) == before


def test_the_same_tree_gives_the_same_bytes_anywhere(write: Write, project: Path, tmp_path: Path, packed: Callable[..., Pack]) -> None:
    write("b/main.py", "x = 1")
    write("a.txt", "y")
    first = packed()
    copy = tmp_path / "copy"
    shutil.copytree(project, copy)
    os.utime(copy / "a.txt", (1, 1))
    assert packed(copy).digest == first.digest


def test_an_unchanged_project_is_not_compressed_again_and_a_change_is_seen(
    write: Write, project: Path, packed: Callable[..., Pack]
) -> None:
    path = write("main.py", "x = 1")
    time.sleep(2.1)  # time stamps younger than this are not trusted
    first, second = packed(), packed()
    assert (first.fresh, second.fresh, second.digest) == (True, False, first.digest)
    path.write_text("x = 2")
    third = packed()
    assert third.fresh
    assert third.digest != first.digest


def test_archives_that_nobody_has_used_for_long_are_swept_away_with_the_next_one(write: Write, packed: Callable[..., Pack]) -> None:
    write("main.py", "x = 1")
    old = packed()
    os.utime(old.path, (1, 1))
    write("main.py", "x = 2")
    used = packed()
    assert not old.path.exists()
    assert used.path.exists()


def test_runner_package_excludes(write: Write, project: Path) -> None:
    write("keep.txt", "here")
    write("drop.log", "not here")
    write(
        "flame.yaml",
        f"clusters:\n  - name: x\n    package: {{storage: 'file://{project.parent}/store', excludes: ['*.log', flame.yaml]}}\n",
    )

    def names() -> list[str]:
        return sorted(name for name in os.listdir(os.environ["FLAME_APP_DIR"]) if name[0] != ".")

    with Runner("packed", engine="local") as rr:
        assert rr.service(names)().get() == ["keep.txt"]
        assert len(list((project.parent / "store").glob("packed-*.tar.gz"))) == 1
    assert not list((project.parent / "store").iterdir())
