"""What a build must not do: ship what is not of the project, install more than was asked for, leave processes or files behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest
from flamepy.build import BuildError, build_project, check_project, clean_project
from flamepy.build.estimate import sizes_in
from flamepy.build.targets import target_of

from .conftest import make_wheel

APP = """
from flamepy import CpuResource, remote

cpu = CpuResource(name="cpu-1")

@remote(cpu)
def double(x):
    return x * 2
"""
FLASH = """
from runpod_flash import Endpoint, GpuGroup

@Endpoint(name="e", gpu=GpuGroup.ANY{more})
def f(n: int):
    {body}
    return n
"""


def names(archive: Path) -> set[str]:
    with tarfile.open(archive) as tar:
        return set(tar.getnames())


# ---------------------------------------------------------------------- links


def test_a_link_to_a_file_outside_is_refused_and_its_content_not_shipped(write, tmp_path: Path) -> None:
    secret = tmp_path / "credentials"
    secret.write_text("aws_secret_access_key = hunter2")
    root = write(APP)
    (root / "settings.txt").symlink_to(secret)
    with pytest.raises(BuildError, match=r"settings\.txt: is a link out of the project, to .*credentials"):
        build_project(root)
    report = build_project(root, exclude=["settings.txt"])
    assert "settings.txt" not in names(report.archive)


def test_a_link_that_leads_out_by_another_link_is_refused(write, tmp_path: Path) -> None:
    (tmp_path / "credentials").write_text("hunter2")
    root = write(APP)
    (root / "a.txt").symlink_to("b.txt")
    (root / "b.txt").symlink_to(tmp_path / "credentials")
    with pytest.raises(BuildError) as caught:
        build_project(root)
    assert {problem.file for problem in caught.value.problems} == {"a.txt", "b.txt"}


@pytest.mark.parametrize("absolute", [True, False])
def test_a_link_to_a_secret_of_the_project_is_refused(write, absolute: bool) -> None:
    root = write({"app.py": APP, ".env": "TOKEN=hunter2"})
    (root / "config.txt").symlink_to(root / ".env" if absolute else ".env")
    with pytest.raises(BuildError, match=r"config\.txt: is a link to \.env, which is left out"):
        build_project(root)


def test_a_link_inside_the_project_stays_one(write) -> None:
    root = write({"app.py": APP, "data/a.txt": "a"})
    (root / "b.txt").symlink_to("data/a.txt")
    with tarfile.open(build_project(root).archive) as tar:
        assert tar.getmember("b.txt").linkname == "data/a.txt"


# ---------------------------------------------------------------------- requirements


@pytest.mark.parametrize(
    "line", ["--index-url https://example.invalid six", "-r other.txt", "-e .", "git+https://example.invalid/x", "./x"]
)
def test_only_requirements_are_taken_from_a_decorator(write, line: str) -> None:
    with pytest.raises(BuildError, match=r"app\.py:4: the dependency .* is no requirement \(PEP 508\)"):
        build_project(write(FLASH.format(more=f", dependencies=['six', {line!r}]", body="pass")))


def test_installer_options_in_a_resource_are_refused_too(write) -> None:
    with pytest.raises(BuildError, match=r"is no requirement"):
        build_project(write(APP.replace('name="cpu-1"', 'name="cpu-1", dependencies=["--pre"]')))


def test_what_the_image_has_is_left_out_even_where_others_depend_on_it(write, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "torch", {"torch/__init__.py": "", "torch/huge.bin": "x" * 1000})
    make_wheel(wheelhouse, "diffuser", {"diffuser/__init__.py": ""}, requires=("torch",))
    root = write(FLASH.format(more=", dependencies=['torch', 'diffuser']", body="import torch, diffuser"))
    report = build_project(root)
    found = names(report.archive)
    assert "diffuser/__init__.py" in found
    assert not [name for name in found if name.startswith("torch")]
    assert any("not installed: torch" in note for note in report.notes)
    assert (report.manifest["target"], report.manifest["platform"]) == ("runpod", "x86_64-manylinux_2_28")
    assert "torch/__init__.py" in names(build_project(root, target="here").archive)


def test_packages_can_be_left_out_by_name(write, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "heavy", {"heavy/__init__.py": ""})
    make_wheel(wheelhouse, "light", {"light/__init__.py": ""}, requires=("heavy",))
    root = write({"app.py": APP, "requirements.txt": "light\n"})
    found = names(build_project(root, without=["heavy"]).archive)
    assert "light/__init__.py" in found
    assert "heavy/__init__.py" not in found


def test_the_other_sdk_is_never_installed(write, wheelhouse: Path) -> None:
    root = write({"app.py": FLASH.format(more="", body="pass"), "requirements.txt": "runpod-flash>=1\ntetra_rp\n"})
    report = build_project(root)
    assert report.dependencies == ()
    assert "runpod_flash/__init__.py" in names(report.archive)


def test_handlers_that_import_what_only_the_image_has_are_told_as_untried(write) -> None:
    report = build_project(write("import torch\n" + FLASH.format(more="", body="pass")))
    assert any("it imports torch, which the image has" in note for note in report.notes)


def test_an_unknown_target_or_a_python_it_does_not_have_is_refused(write) -> None:
    root = write(APP)
    with pytest.raises(BuildError, match="target 'moon' is not known"):
        build_project(root, target="moon")
    with pytest.raises(BuildError, match=r"runpod has no Python 3\.8"):
        build_project(root, target="runpod", python="3.8")


# ---------------------------------------------------------------------- imports in bodies


def test_an_import_in_a_body_that_nothing_provides_is_an_error_with_its_line(write) -> None:
    with pytest.raises(BuildError, match=r"app\.py:6: imports numexpr, which is neither in the project nor installed"):
        build_project(write(FLASH.format(more="", body="import numexpr")))


def test_so_is_one_in_a_function_that_the_endpoint_calls(write) -> None:
    text = FLASH.format(more="", body="return helper()") + "\ndef helper():\n    from numexpr.core import x\n    return x\n"
    with pytest.raises(BuildError, match=r"app\.py:10: imports numexpr\.core"):
        build_project(write(text))


def test_imports_that_may_fail_or_are_there_are_fine(write, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "tool", {"tool/__init__.py": ""})
    body = "import json, tool, helpers.more, torch\n    try:\n        import numexpr\n    except ImportError:\n        pass"
    files = {"app.py": FLASH.format(more=", dependencies=['tool']", body=body), "helpers/more.py": ""}
    files["app.py"] += "\nasync def main():\n    import httpx_of_the_client_only\n"
    assert build_project(write(files)).handlers == ("handler_e.py",)


# ---------------------------------------------------------------------- the environment


def test_the_resource_s_own_variables_are_there_when_its_handler_is_tried_out(write) -> None:
    text = 'import os\nassert os.environ["MODE"] == "fast"\n' + FLASH.format(more=', env={"MODE": "fast"}', body="pass")
    assert build_project(write(text)).handlers == ("handler_e.py",)


def test_variables_to_set_are_told_and_keep_their_default(write) -> None:
    more = ', env={"TOKEN": os.environ.get("HF_TOKEN", "none"), "KEY": os.environ["KEY"], "MODE": "fast"}'
    report = build_project(
        write("import os\n" + FLASH.format(more=more, body="pass").replace("@Endpoint", "os.environ.setdefault('KEY', '')\n@Endpoint"))
    )
    entry = report.manifest["resources"]["e"]
    assert entry["env"] == {"TOKEN": "none", "KEY": None, "MODE": "fast"}
    assert entry["env_to_set"] == {"TOKEN": {"from": "HF_TOKEN", "default": "none"}, "KEY": {"from": "KEY", "default": None}}
    assert "to set where e runs: TOKEN, which the program takes from HF_TOKEN; its default is 'none'" in report.notes
    assert "to set where e runs: KEY; it has no default" in report.notes


# ---------------------------------------------------------------------- sizes


LOCK = """
[[packages]]
name = "big"
wheels = [
  {url = "https://example.invalid/big-1-cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64.whl", size = 700},
  {url = "https://example.invalid/big-1-cp312-cp312-macosx_11_0_arm64.whl", size = 10},
  {url = "https://example.invalid/big-1-cp311-cp311-manylinux_2_17_x86_64.whl", size = 5},
]
[[packages]]
name = "pure"
wheels = [{url = "https://example.invalid/pure-1-py3-none-any.whl", size = 20}]
[[packages]]
name = "source"
sdist = {url = "https://example.invalid/source-1.tar.gz", size = 3}
"""


def test_a_size_is_that_of_the_file_the_target_takes(tmp_path: Path) -> None:
    lock = tmp_path / "pylock.toml"
    lock.write_text(LOCK)
    assert sizes_in(lock, target_of("runpod", "3.12", "", flash=True)) == {"big": 700, "pure": 20, "source": 3}


def test_a_check_writes_nothing_and_tells_what_would_be_built(write) -> None:
    root = write(FLASH.format(more="", body="pass"))
    report = check_project(root)
    assert report.manifest["function_registry"] == {"f": "e"}
    assert (report.dependencies, report.download) == ((), 0)
    assert not (root / ".flash").exists()


# ---------------------------------------------------------------------- the same, and nothing left


def test_the_same_files_give_the_same_bytes_in_any_directory(write, tmp_path: Path, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "tool", {"tool/__init__.py": ""})
    root = write({"app.py": APP, "requirements.txt": "tool\n", "data/x.txt": "x"})
    other = tmp_path / "deeper" / "elsewhere"
    shutil.copytree(root, other)
    (other / "app.py").chmod(0o600)
    assert build_project(root).digest == build_project(other).digest


def test_undeploying_removes_every_archive_that_was_made_and_nothing_else(write, tmp_path: Path) -> None:
    root = write(APP)
    elsewhere = tmp_path / "out" / "mine.tar.gz"
    build_project(root, output=elsewhere)
    build_project(root, output="second.tar.gz")
    build_project(root, output="third.tar.gz", keep_build=True)
    third = root / ".flash" / "third.tar.gz"
    third.write_bytes(b"somebody else's by now")
    clean_project(root)
    assert not elsewhere.exists()
    assert [path.name for path in (root / ".flash").iterdir()] == ["third.tar.gz"]


def test_a_terminated_build_leaves_no_process_and_no_archive(write, tmp_path: Path) -> None:
    root = write("import time\ntime.sleep(120)\n" + APP)
    order = [str(Path(sys.executable).with_name("flame")), "build", str(root)]
    with (tmp_path / "said").open("w") as said:
        process = subprocess.Popen(order, stdout=said, stderr=said, env=os.environ.copy())
    try:
        deadline = time.monotonic() + 60
        while "importing" not in (tmp_path / "said").read_text() or not psutil.Process(process.pid).children(recursive=True):
            assert process.poll() is None, (tmp_path / "said").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = psutil.Process(process.pid).children(recursive=True)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 130
    finally:
        process.kill()
        process.wait()
    _, alive = psutil.wait_procs(children, 10)
    assert alive == []
    assert not (root / ".flash" / ".build").exists()
    assert not (root / ".flash" / "archive.tar.gz").exists()


def test_the_check_on_the_command_line_prints_json(write) -> None:
    root = write(FLASH.format(more="", body="pass"))
    order = [str(Path(sys.executable).with_name("flame")), "build", "--check", "--json", str(root)]
    done = subprocess.run(order, capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout)["manifest"]["target"] == "runpod"
