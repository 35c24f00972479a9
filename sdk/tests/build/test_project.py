"""`build_project`: what it refuses, what goes into the archive, and that the same project gives the same bytes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import jsonschema
import pytest
from flamepy.build import BuildError, build_project, clean_project
from flamepy.build.manifest import manifest_schema

from flame_host.api import InstallError

from .conftest import make_wheel

APP = """
from flamepy import CpuResource, remote

cpu = CpuResource(name="cpu-1")

@remote(cpu)
def double(x):
    return x * 2
"""


def names(archive: Path) -> list[str]:
    with tarfile.open(archive) as tar:
        return tar.getnames()


# ---------------------------------------------------------------------- unhappy


def test_a_project_without_endpoints_is_an_error(write) -> None:
    with pytest.raises(BuildError, match="no @remote function was found"):
        build_project(write("x = 1\n"))


def test_a_failed_build_leaves_no_archive_and_no_build_directory(write) -> None:
    root = write(APP)
    build_project(root)
    write({"broken.py": "def f(:\n"})
    with pytest.raises(BuildError, match=r"broken\.py:1"):
        build_project(root)
    assert not (root / ".flash" / "archive.tar.gz").exists()
    assert not (root / ".flash" / ".build").exists()


def test_a_module_that_fails_at_import_fails_the_build(write) -> None:
    with pytest.raises(BuildError, match=r"handler_cpu-1\.py: cannot be imported(.|\n)*ZeroDivisionError"):
        build_project(write(APP + "\n1 / 0\n"))


def test_a_dependency_that_is_not_declared_fails_the_build(write) -> None:
    with pytest.raises(BuildError, match="No module named 'pytest'"):
        build_project(write("import pytest\n" + APP))


def test_an_archive_over_the_limit_is_refused_with_the_largest_parts(write) -> None:
    root = write(APP)
    (root / "weights.bin").write_bytes(os.urandom(900_000))
    with pytest.raises(BuildError, match=r"KiB are allowed. The largest parts: weights\.bin 878\.9"):
        build_project(root, size_limit=100_000)
    assert not (root / ".flash" / "archive.tar.gz").exists()


@pytest.mark.parametrize("name", ["flamepy", "flame_host", "pluggy", "cloudpickle"])
def test_a_package_of_the_project_may_not_hide_what_the_handlers_need(write, name: str) -> None:
    with pytest.raises(BuildError, match=f"{name}: has the name of a package"):
        build_project(write({"app.py": APP, f"{name}/__init__.py": ""}))


@pytest.mark.parametrize("own", ["toolbox/__init__.py", "toolbox.py", "Toolbox/x.py", "src/toolbox/__init__.py"])
def test_a_wheel_never_overwrites_a_package_of_the_project(write, wheelhouse: Path, own: str) -> None:
    make_wheel(wheelhouse, "toolbox", {"toolbox/__init__.py": "theirs = 1\n"})
    root = write({"app.py": APP, "requirements.txt": "toolbox\n", own: "mine = 1\n"})
    with pytest.raises(BuildError, match="has the name of a dependency's 'toolbox'"):
        build_project(root)


def test_a_requirement_that_is_not_to_be_had_is_an_error_with_the_installer_s_words(write, wheelhouse: Path) -> None:
    with pytest.raises(InstallError, match="nowhere-to-be-found"):
        build_project(write({"app.py": APP, "requirements.txt": "nowhere-to-be-found==1\n"}))


def test_an_editable_requirement_is_refused_with_its_line(write) -> None:
    with pytest.raises(BuildError, match=r"requirements\.txt:2: '-e \./lib' is installed in place"):
        build_project(write({"app.py": APP, "requirements.txt": "# mine\n-e ./lib\n"}))


def test_dynamic_dependencies_are_refused(write) -> None:
    with pytest.raises(BuildError, match=r"pyproject\.toml: dependencies are dynamic"):
        build_project(write({"app.py": APP, "pyproject.toml": "[project]\nname='x'\ndynamic=['dependencies']\n"}))


def test_a_wrong_python_version_is_refused(write) -> None:
    with pytest.raises(BuildError, match="python 'three' is no version"):
        build_project(write(APP), python="three")


def test_an_output_that_is_no_tar_gz_is_refused(write) -> None:
    with pytest.raises(BuildError, match=r"let --output end in \.tar\.gz"):
        build_project(write(APP), output="app.zip")


# ---------------------------------------------------------------------- the archive


def test_the_archive_is_flat_and_complete(write) -> None:
    root = write({"app.py": APP, "data/words.txt": "a\n", "requirements.txt": "", "pyproject.toml": ""})
    report = build_project(root)
    found = set(names(report.archive))
    assert {
        "app.py",
        "data/words.txt",
        "handler_cpu-1.py",
        "flash_manifest.json",
        "flame_host/handler.py",
        "flamepy/_remote/decorator.py",
    } <= found
    assert not {"requirements.txt", "pyproject.toml"} & found  # what they ask for is in it; nobody shall install it again
    assert (report.archive, report.files) == (root / ".flash" / "archive.tar.gz", len(found))
    assert report.handlers == ("handler_cpu-1.py",)


def test_the_manifest_is_in_the_archive_and_beside_it(write) -> None:
    report = build_project(write(APP))
    with tarfile.open(report.archive) as tar:
        member = tar.extractfile("flash_manifest.json")
        assert member is not None
        inside = json.load(member)
    beside = json.loads((report.archive.parent / "flash_manifest.json").read_text())
    for manifest in (inside, beside):
        jsonschema.Draft202012Validator(manifest_schema()).validate(manifest)
    assert beside.pop("generated_at")
    assert (inside.pop("project_name"), beside.pop("project_name")) == ("", "project")
    assert inside == beside


def test_secrets_are_never_packed(write) -> None:
    root = write({"app.py": APP, ".env": "TOKEN=1", "conf/.env.local": "T=1", "key.pem": "k", "id_rsa": "k"})
    report = build_project(root)
    assert not [name for name in names(report.archive) if ".env" in name or name in ("key.pem", "id_rsa")]
    assert "left out, for they look like secrets: .env, conf/.env.local, id_rsa, key.pem" in report.notes


def test_excludes_are_left_out_and_unused_ones_are_told(write) -> None:
    report = build_project(write({"app.py": APP, "big/model.bin": "x"}), exclude=["big/", "no-such-thing"])
    assert not [name for name in names(report.archive) if name.startswith("big")]
    assert "--exclude matched nothing: no-such-thing" in report.notes


def test_the_output_can_be_named(write, tmp_path: Path) -> None:
    root = write(APP)
    assert build_project(root, output="mine.tar.gz").archive == root / ".flash" / "mine.tar.gz"
    assert build_project(root, output=tmp_path / "there.tgz").archive == tmp_path / "there.tgz"


def test_the_build_directory_is_kept_on_demand_only(write) -> None:
    root = write(APP)
    build_project(root)
    assert not (root / ".flash" / ".build").exists()
    build_project(root, keep_build=True)
    assert (root / ".flash" / ".build" / "handler_cpu-1.py").is_file()


def test_progress_is_told(write) -> None:
    said: list[str] = []
    build_project(write(APP), progress=said.append)
    assert [line.split()[0] for line in said] == ["looking", "copying", "importing", "writing"]


def test_the_report_is_plain_data(write) -> None:
    report = build_project(write(APP))
    assert json.loads(json.dumps(report.to_json()))["digest"] == report.digest


# ---------------------------------------------------------------------- dependencies


def test_dependencies_come_from_every_place_that_names_some(write, wheelhouse: Path) -> None:
    for name in ("alpha", "beta", "gamma", "delta", "epsilon"):
        make_wheel(wheelhouse, name, {f"{name}.py": ""})
    decorated = APP.replace("@remote(cpu)", "@remote(cpu, dependencies=['delta'])").replace("name=", "dependencies=['gamma'], name=")
    project = "[project]\nname = 'shop'\ndependencies = ['beta', 'flame-host-sdk']\n[tool.flame]\ndependencies = ['epsilon']\n"
    report = build_project(write({"app.py": decorated, "requirements.txt": "alpha  # first\n", "pyproject.toml": project}))
    assert report.dependencies == ("alpha", "beta", "epsilon", "gamma", "delta")
    assert {f"{name}.py" for name in report.dependencies} <= set(names(report.archive))


def test_no_deps_installs_what_is_named_only(write, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "alpha", {"alpha.py": ""}, requires=("beta",))
    make_wheel(wheelhouse, "beta", {"beta.py": ""})
    root = write({"app.py": APP, "requirements.txt": "alpha\n"})
    assert {"alpha.py", "beta.py"} <= set(names(build_project(root).archive))
    report = build_project(root, no_deps=True)
    assert "alpha.py" in names(report.archive)
    assert "beta.py" not in names(report.archive)
    assert "the handlers were not tried out: the image is to bring dependencies" in report.notes


def test_wheels_of_the_target_platform_and_python_are_taken(write, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "native", {"native.py": "where = 'there'\n"}, tag="cp312-cp312-manylinux_2_28_aarch64")
    make_wheel(wheelhouse, "other", {"other.py": ""}, tag="cp313-cp313-manylinux_2_28_aarch64")
    root = write({"app.py": APP, "requirements.txt": "native\n"})
    report = build_project(root, python="3.12", platform="aarch64-manylinux_2_28")
    assert "native.py" in names(report.archive)
    assert (report.manifest["python"], report.manifest["platform"]) == ("3.12", "aarch64-manylinux_2_28")
    assert "the handlers were not tried out: they are for another platform or Python" in report.notes
    write({"requirements.txt": "other\n"})
    with pytest.raises(InstallError, match="is there one of every dependency"):
        build_project(root, python="3.12", platform="aarch64-manylinux_2_28")


def test_nothing_of_the_building_machine_is_in_what_was_installed(write, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "alpha", {"alpha/__init__.py": "def main(): ...\n"})
    report = build_project(write({"app.py": APP, "requirements.txt": "alpha\n"}), keep_build=True)
    build = report.archive.parent / ".build"
    assert not (build / "bin").exists()
    assert not list(build.rglob("*.pyc"))
    record = next(build.glob("alpha-*.dist-info/RECORD")).read_text()
    assert "bin/" not in record
    assert str(build.parent.parent).encode() not in report.archive.read_bytes()


def test_where_pickle_is_denied_the_archive_brings_another_format(write) -> None:
    pytest.importorskip("flame_serialize_msgpack")
    msgpack_is_compiled = bool(list(Path(__import__("msgpack").__file__).parent.glob("*.so")))
    root = write({"app.py": APP, "pyproject.toml": "[tool.flame]\npolicy = {pickle = 'deny'}\n"})
    report = build_project(root, no_deps=True) if not msgpack_is_compiled else _built_online_or_skip(root)
    assert report.manifest["policy"] == {"pickle": "deny"}
    formats = [entry["format"] for entry in report.manifest["serializers"]]
    assert formats == ["msgpack/1", "json/1"]
    assert "flame_serialize_msgpack/codec.py" in names(report.archive)


def _built_online_or_skip(root: Path):
    try:
        return build_project(root)
    except InstallError as error:
        pytest.skip(f"msgpack cannot be fetched here: {error.tail[-200:]}")


# ---------------------------------------------------------------------- the same bytes


def test_two_builds_are_the_same_bytes(write, wheelhouse: Path) -> None:
    make_wheel(wheelhouse, "alpha", {"alpha/__init__.py": "def main(): ...\n", "alpha/data.txt": "x"})
    root = write({"app.py": APP, "requirements.txt": "alpha\n", "pkg/__init__.py": ""})
    first = build_project(root)
    for path in root.rglob("*.py"):
        os.utime(path, (1, 1))
    (root / "pkg" / "__pycache__").mkdir()
    (root / "pkg" / "__pycache__" / "x.cpython-311.pyc").write_bytes(b"bytecode")
    assert build_project(root, output="again.tar.gz").digest == first.digest


def test_another_content_is_another_digest(write) -> None:
    first = build_project(write(APP))
    assert build_project(write(APP.replace("* 2", "* 3"))).digest != first.digest


def test_a_given_time_is_part_of_the_archive(write, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write(APP)
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "0")
    first = build_project(root)
    assert first.manifest["generated_at"] == "1970-01-01T00:00:00Z"
    assert build_project(root).digest == first.digest


# ---------------------------------------------------------------------- it works, and goes away


def test_an_unpacked_archive_answers_in_a_bare_interpreter(write, tmp_path: Path) -> None:
    report = build_project(write({"app.py": APP, "src/lib/__init__.py": "", "src/lib/odd-name.py": APP.replace("double", "twice")}))
    target = tmp_path / "unpacked"
    shutil.unpack_archive(report.archive, target)
    code = """
import base64, cloudpickle, importlib
handler = importlib.import_module("handler_cpu-1").handler
argument = base64.b64encode(cloudpickle.dumps(21)).decode()
answers = [handler({"input": {"function_name": name, "args": [argument]}}) for name in ("double", "twice")]
print([cloudpickle.loads(base64.b64decode(answer["result"])) for answer in answers])
"""
    done = subprocess.run(
        [sys.executable, "-E", "-s", "-S", "-c", f"import sys; sys.path.insert(0, {str(target)!r}){code}"],
        cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == "[42, 42]\n", done.stderr


def test_cleaning_removes_what_was_built_and_nothing_else(write) -> None:
    root = write(APP)
    assert clean_project(root) == []
    build_project(root, keep_build=True)
    (root / ".flash" / "notes.txt").write_text("mine")
    assert root / ".flash" / "archive.tar.gz" in clean_project(root)
    assert [path.name for path in (root / ".flash").iterdir()] == ["notes.txt"]
    (root / ".flash" / "notes.txt").unlink()
    build_project(root)
    clean_project(root)
    assert not (root / ".flash").exists()
