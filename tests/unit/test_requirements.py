"""What a project needs is read from its files, and nothing of it is run."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path

import pytest

from flame_host._packages.project import Project, read_project
from flame_host.api import ConfigError


def project(tree: Path, **files: str) -> Project:
    for name, text in files.items():
        path = tree / name.replace("__", "/").replace("_toml", ".toml").replace("_txt", ".txt").replace("_py", ".py").replace(
            "_cfg", ".cfg"
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))
    return read_project(tree)[0]


PYPROJECT = '[project]\nname = "x"\nversion = "1"\n'


def test_a_broken_pyproject_is_named_with_its_line(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"pyproject\.toml: .*line 2"):
        project(tmp_path, pyproject_toml="[project]\nname = \n")


def test_dependencies_that_are_no_list_of_strings_are_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match=r"\[project\] dependencies"):
        project(tmp_path, pyproject_toml=PYPROJECT + "dependencies = 'numpy'\n")


def test_an_extra_that_does_not_exist_is_refused_with_those_that_do(tmp_path: Path):
    text = PYPROJECT + '[project.optional-dependencies]\ngpu = ["torch"]\n[tool.flame]\nextras = ["cuda"]\n'
    with pytest.raises(ConfigError, match="gpu"):
        project(tmp_path, pyproject_toml=text)


def test_groups_that_include_each_other_are_refused(tmp_path: Path):
    text = PYPROJECT + ('[dependency-groups]\na = [{include-group = "b"}]\nb = [{include-group = "a"}]\n[tool.flame]\ngroups = ["a"]\n')
    with pytest.raises(ConfigError, match="a → b → a includes itself"):
        project(tmp_path, pyproject_toml=text)


def test_a_script_block_that_does_not_end_is_refused(tmp_path: Path):
    with pytest.raises(ConfigError, match="does not end"):
        project(tmp_path, main_py="# /// script\n# dependencies = []\nprint()\n")


def test_static_dependencies_with_extras_and_groups(tmp_path: Path):
    text = PYPROJECT + (
        'dependencies = ["a"]\nrequires-python = ">=3.9"\n[project.optional-dependencies]\ngpu = ["b"]\n'
        '[dependency-groups]\ndata = ["c", {include-group = "more"}]\nmore = ["d"]\n[tool.flame]\nextras = ["gpu"]\ngroups = ["data"]\n'
    )
    found = project(tmp_path, pyproject_toml=text).requirements
    assert (found.dependencies, found.python, found.build, found.source_paths) == (("a", "b", "c", "d"), ">=3.9", None, (".",))


BUILT = '[project]\nname = "x"\nversion = "1"\ndynamic = ["dependencies"]\n'


def test_what_has_to_be_built_has_its_extras_its_groups_and_its_lock(tmp_path: Path):
    (tmp_path / "uv.lock").write_text("")
    chosen = '[project.optional-dependencies]\ngpu = ["torch"]\n[dependency-groups]\ntest = ["pytest"]\n'
    needs = project(tmp_path, pyproject_toml=BUILT + chosen + '[tool.flame]\nextras = ["gpu"]\ngroups = ["test"]\n').requirements
    assert (needs.extras, needs.groups, needs.dependencies, needs.lock) == (("gpu",), ("test",), ("pytest",), Path("uv.lock"))
    with pytest.raises(ConfigError, match="gpu"):
        project(tmp_path, pyproject_toml=BUILT + chosen + '[tool.flame]\nextras = ["cuda"]\n')


def test_a_setup_py_has_extras_too(tmp_path: Path):
    assert project(tmp_path, setup_py="setup()", pyproject_toml='[tool.flame]\nextras = ["gpu"]\n').requirements.extras == ("gpu",)


def test_a_group_of_what_has_to_be_built_is_never_looked_up_in_place_of_its_source(tmp_path: Path):
    group = '[dependency-groups]\ndev = ["liba"]\n[tool.uv.sources]\nliba = {git = "https://host.invalid/liba"}\n'
    with pytest.raises(ConfigError, match="groups dev want liba from where its source says"):
        project(tmp_path, pyproject_toml=BUILT + group)


@pytest.mark.parametrize("chosen", ['extras = ["gpu"]', 'groups = ["test"]'])
def test_extras_and_groups_without_a_project_are_refused(tmp_path: Path, chosen: str):
    with pytest.raises(ConfigError, match=rf"\[tool.flame\] {chosen[:6]}: there is no \[project\]"):
        project(tmp_path, requirements_txt="six", pyproject_toml=f"[tool.flame]\n{chosen}\n")


def test_a_src_layout_puts_src_first(tmp_path: Path):
    assert project(tmp_path, pyproject_toml=PYPROJECT, src__x__a_py="").requirements.source_paths == ("src", ".")


@pytest.mark.parametrize(
    "files",
    [
        {"setup_py": "from setuptools import setup\nsetup(name='x')\n"},
        {"setup_cfg": "[metadata]\nname = x\n"},
        {"pyproject_toml": '[project]\nname = "x"\ndynamic = ["dependencies"]\n'},
        {"pyproject_toml": PYPROJECT + '[build-system]\nrequires = ["maturin"]\nbuild-backend = "maturin"\n'},
        {"pyproject_toml": '[build-system]\nrequires = ["setuptools"]\n', "setup_py": "setup()"},
        {"PKG-INFO": "Name: x\n"},
    ],
)
def test_what_has_to_be_built_is_built(tmp_path: Path, files: dict[str, str]):
    assert project(tmp_path, **files).requirements.build == Path(".")


def test_a_setup_cfg_that_only_configures_tools_builds_nothing(tmp_path: Path):
    assert project(tmp_path, setup_cfg="[flake8]\nmax-line-length = 100\n").requirements.build is None


def test_a_wheel_is_its_own_requirement(tmp_path: Path):
    (tmp_path / "x-1-py3-none-any.whl").write_bytes(b"")
    assert read_project(tmp_path)[0].requirements.build == Path("x-1-py3-none-any.whl")


def test_requirements_files_are_identified_by_their_content(tmp_path: Path):
    first = project(tmp_path, requirements_txt="a==1\n")
    assert first.requirements.files == (Path("requirements.txt"),)
    assert project(tmp_path, requirements_txt="a==2\n").digest != first.digest


def test_a_single_script_carries_its_own_requirements(tmp_path: Path):
    text = '# /// script\n# requires-python = ">=3.10"\n# dependencies = [\n#   "a",\n# ]\n# ///\nprint()\n'
    found = project(tmp_path, main_py=text).requirements
    assert (found.dependencies, found.python) == (("a",), ">=3.10")


def test_a_single_directory_at_the_top_is_the_project(tmp_path: Path):
    found = project(tmp_path, **{"my-app__pyproject_toml": PYPROJECT + 'dependencies = ["a"]\n'})
    assert (found.root, found.requirements.dependencies) == ("my-app", ("a",))


def test_a_tree_without_any_project_file_needs_nothing(tmp_path: Path):
    found = project(tmp_path, main_py="print()\n")
    assert (found.requirements.dependencies, found.requirements.files, found.requirements.build) == ((), (), None)


def test_what_was_read_survives_being_written_down(tmp_path: Path):
    found = project(tmp_path, requirements_txt="a\n", pyproject_toml="[tool.other]\n")
    assert Project.from_facts(found.to_facts()) == found


@pytest.mark.parametrize("field", ["root", "script", "directory", "paths"])
def test_what_a_package_says_about_itself_leads_nowhere_else(tmp_path: Path, field: str):
    place = ["../.."] if field == "paths" else "../.."
    (tmp_path / ".flame-package.json").write_text(json.dumps({field: place}))
    with pytest.raises(ConfigError, match="outside of the package"):
        read_project(tmp_path)


@pytest.mark.parametrize("pattern", ["../*", "/etc/*", "a/../../*"])
def test_members_of_a_workspace_stand_below_it(tmp_path: Path, pattern: str):
    with pytest.raises(ConfigError, match="does not lie below"):
        project(tmp_path, pyproject_toml=PYPROJECT + f'[tool.uv.workspace]\nmembers = ["{pattern}"]\n')
