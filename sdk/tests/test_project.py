"""The project is found from where the code is, and a line says so where one may wonder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flamepy._package.versions import recorded

PROGRAM = """
import os, sys
from flamepy import Runner


def where():
    return sorted(name for name in os.listdir(os.environ["FLAME_APP_DIR"]) if name[0] != "."), os.path.basename(os.getcwd())


if __name__ == "__main__":
    with Runner("located") as rr:
        print(rr.service(where)().get())
"""


def write(place: Path, **files: str) -> None:
    for name, text in files.items():
        path = place / name.replace("__", "/").replace("_py", ".py").replace("_toml", ".toml")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def run(program: list[str], where: Path, **more: str) -> tuple[str, str]:
    environment = {**{key: value for key, value in os.environ.items() if key != "FLAME_PROJECT"}, **more}
    done = subprocess.run([sys.executable, *program], cwd=where, env=environment, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip(), done.stderr


@pytest.mark.parametrize("place", ["scripts", "src", "."])
def test_from_the_script_upwards(place: str, project: Path) -> None:
    write(project, pyproject_toml="", scripts__main_py=PROGRAM, src__main_py=PROGRAM, main_py=PROGRAM)
    script = str(project / place / "main.py")
    expected = ["main.py", "pyproject.toml", "scripts", "src"]
    assert run([script], project.parent)[0].startswith(f"({expected!r}")
    assert run([script], project / "scripts")[0] == f"({expected!r}, 'scripts')"
    assert run(["-m", "main"], project / place)[0].startswith(f"({expected!r}")


def test_without_a_project_file_it_is_the_directory_of_the_code_and_that_is_told(project: Path) -> None:
    write(project, a__main_py=PROGRAM, b__other_py="")
    found, said = run([str(project / "a" / "main.py")], project / "b")
    assert found.startswith("(['main.py']")
    assert "no project file in" in said


def test_a_current_directory_that_is_another_project_is_told(project: Path) -> None:
    write(project, a__pyproject_toml="", a__main_py=PROGRAM, b__pyproject_toml="", b__x_py="")
    found, said = run([str(project / "a" / "main.py")], project / "b")
    assert found.startswith("(['main.py', 'pyproject.toml']")
    assert f"{project / 'b'}, the current directory, is another one" in said


def test_flame_project_names_it(project: Path) -> None:
    write(project, a__pyproject_toml="", a__main_py=PROGRAM, b__x_py="")
    assert run([str(project / "a" / "main.py")], project, FLAME_PROJECT=str(project / "b"))[0].startswith("(['x.py']")


def test_a_session_uses_what_was_edited_and_opening_again_replaces(project: Path) -> None:
    write(project, helper_py="def value(): return 1\n")
    session = """
import helper, importlib
from flamepy import Runner
rr = Runner("nb").open()
first = rr.service(helper.value)
print("seen", first().get())
_ = open("helper.py", "w").write("def value(): return 22\\n")
_ = importlib.reload(helper)
print("seen", rr.service(helper.value)().get(), first().get())
rr = Runner("nb").open()
print("seen", rr.service(helper.value)().get())
"""
    done = subprocess.run([sys.executable, "-i", "-q"], input=session, cwd=project, capture_output=True, text=True, check=True, timeout=60)
    assert [line.partition("seen ")[2] for line in done.stdout.splitlines() if "seen " in line] == ["1", "22 1", "22"], done.stderr
    assert "'nb' was open already" in done.stderr


def test_the_module_that_building_would_write_the_version_to_is_there(project: Path) -> None:
    program = PROGRAM.replace("    return sorted(", "    import pkg._version\n    return pkg._version.version, sorted(")
    text = '[project]\nname = "pkg"\ndynamic = ["version"]\n[tool.setuptools_scm]\nversion_file = "pkg/_version.py"\n'
    write(project, pyproject_toml=text, pkg__x_py="", main_py=program)
    (project / ".gitignore").write_text("_version.py\n")
    text += '[build-system]\nrequires = ["setuptools"]\n'
    write(project, pyproject_toml=text)
    identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
    for arguments in (["init", "-q"], ["add", "-A"], [*identity, "commit", "-qm", "first"], ["tag", "2.5"]):
        subprocess.run(["git", *arguments], cwd=project, check=True)
    assert run([str(project / "main.py")], project)[0].startswith("('2.5', [")
    (project / "pkg" / "_version.py").write_text("version = 'as built'\n")
    assert run([str(project / "main.py")], project)[0].startswith("('as built', [")


def test_a_version_from_version_control_is_recorded_as_setuptools_scm_would_make_it(project: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ["-c", "user.name=x", "-c", "user.email=x@example.org"]
        return subprocess.run(["git", *identity, *arguments], cwd=project, capture_output=True, text=True, check=True).stdout.strip()

    write(project, a_py="")
    assert recorded({"some-thing": project}) == {}
    git("init", "-q")
    git("add", "-A")
    git("commit", "-qm", "first")
    node = git("rev-parse", "--short", "HEAD")
    assert recorded({"some-thing": project}) == {"some-thing": f"0.1.dev1+g{node}"}
    git("tag", "v1.2.3")
    assert recorded({"some-thing": project}) == {"some-thing": "1.2.3"}
    git("commit", "-qm", "second", "--allow-empty")
    node = git("rev-parse", "--short", "HEAD")
    assert recorded({"some-thing": project}) == {"some-thing": f"1.2.4.dev1+g{node}"}
