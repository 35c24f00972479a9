"""What git would pack, packs; what the host would refuse is refused while packing, by the file's name."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from flamepy import Runner, collect_files, explain

from flame_host.api import ConfigError, PackageError

Write = Callable[..., Path]


def files_of(engine: str = "local", **options: object) -> list[str]:
    with Runner("selection", engine=engine, **options) as rr:  # type: ignore[arg-type]
        found: list[str] = rr.service(_walk)().get()
        return found


def _walk() -> list[str]:
    return sorted(os.path.relpath(os.path.join(place, name)) for place, _, names in os.walk(".") for name in names)


@pytest.mark.parametrize("line", ["!", "\\", "[z-a]", "a\\", "**/[!", "foo/**/"])
def test_an_ignore_line_that_git_skips_is_skipped(line: str, project: Path, write: Write) -> None:
    for place in ("", "sub/"):
        write(place + ".gitignore", f"{line}\n*.log\n")
        write(place + "a.log")
        write(place + "b.txt")
    assert collect_files(project) == ["b.txt", "sub/b.txt"]
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    said = subprocess.run(
        ["git", "-C", str(project), "ls-files", "--others", "--exclude-standard"], capture_output=True, text=True, check=True
    ).stdout.split()
    assert [name for name in said if not name.endswith(".gitignore")] == ["b.txt", "sub/b.txt"]


def test_ignore_files_above_the_project_hold_up_to_the_repository(project: Path, write: Write) -> None:
    subprocess.run(["git", "init", "-q", str(project)], check=True)
    write(".gitignore", "*.log\n/apps/web/data/\n")
    write(".git/info/exclude", "*.scratch\n")
    for name in ("a.log", "b.txt", "c.scratch", "data/d.bin"):
        write(f"apps/web/{name}")
    assert collect_files(project / "apps" / "web") == ["b.txt"]


@pytest.mark.parametrize("name", [b"caf\xe9.txt", b"new\nline.txt", b"back\\slash.txt"])
@pytest.mark.parametrize("archivers", [None, ["tar.gz"]])
def test_a_name_that_no_host_would_unpack_is_named_while_packing(name: bytes, archivers: list[str] | None, project: Path) -> None:
    with open(os.fsencode(project) + b"/" + name, "wb"):
        pass
    with pytest.raises(PackageError, match=r"cannot be packed") as caught:
        files_of(archivers=archivers)
    assert ascii(os.fsdecode(name))[1:5] in str(caught.value)
    with open(project / ".gitignore", "wb") as stream:
        stream.write(b"caf*\nnew*\nback*\n")
    assert files_of(archivers=archivers) == []


@pytest.mark.parametrize("target", ["ignored.log", "empty"])
@pytest.mark.parametrize("archivers", [None, ["zip"]])
def test_a_link_to_what_does_not_travel_is_named_while_packing(
    target: str, archivers: list[str] | None, project: Path, write: Write
) -> None:
    write(".gitignore", "*.log\n")
    write("ignored.log")
    (project / "empty").mkdir()
    (project / "link").symlink_to(target)
    with pytest.raises(PackageError, match=rf"the link link leads to {target}"):
        files_of(archivers=archivers)


def test_contents_behind_links_out_of_the_project_come_along_only_when_asked(
    project: Path, write: Write, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "outside.txt").write_text("private")
    (project / "out.txt").symlink_to(tmp_path / "outside.txt")
    (project / "gone").symlink_to("nowhere")
    write("in.txt")
    (project / "absolute.txt").symlink_to(project / "in.txt")
    assert files_of() == ["absolute.txt", "in.txt"]
    assert "gone, out.txt" in caplog.text
    write("pyproject.toml", '[tool.flame]\ninclude = ["out.txt"]\n')
    assert files_of() == ["absolute.txt", "in.txt", "out.txt", "pyproject.toml"]
    assert [decision.path for decision in explain(project, includes=["out.txt"]) if not decision.included] == ["gone"]


def test_data_is_told_from_50_mb_on_and_refused_beyond_the_limit(project: Path, write: Write, caplog: pytest.LogCaptureFixture) -> None:
    for name, size in (("data/raw/a.bin", 60_000_000), ("data/b.bin", 2_000_000), ("code.py", 10)):
        with open(write(name), "wb") as stream:
            stream.truncate(size)
    with pytest.raises(PackageError, match=r"would have 62\.0 MB, and 61\.0 MB are allowed") as caught:
        files_of(package_limit="61MB")
    assert "60.0 MB  /data/raw/" in str(caught.value)
    assert "package_limit" in caught.value.hint
    assert files_of() == ["code.py", "data/b.bin", "data/raw/a.bin"]
    assert "62.0 MB" in caplog.text
    caplog.clear()
    write(".flameignore", "/data/raw/\n")
    assert files_of() == ["code.py", "data/b.bin"]
    assert not caplog.text
    with pytest.raises(ConfigError, match="no size"):
        files_of(package_limit="much")
