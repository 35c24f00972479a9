"""What the scanner reads of a project as a whole, and which files it reads."""

from __future__ import annotations

from pathlib import Path

import pytest
from flamepy.build import BuildError, RemoteDecoratorScanner, RemoteFunctionMetadata

from flame_host.api import ConfigError

RESOURCES = 'from flamepy import CpuResource, GpuResource\ngpu = GpuResource(name="gpu-1")\ncpu = CpuResource(name="cpu-1")\n'
ENDPOINT = 'from flamepy import Resource, remote\n@remote(Resource(name="r"))\ndef {name}(): ...\n'


def scan(project: Path, *excludes: str) -> list[RemoteFunctionMetadata]:
    return RemoteDecoratorScanner(project, excludes).discover_remote_functions()


def names(project: Path, *excludes: str) -> list[str]:
    return [function.function_name for function in scan(project, *excludes)]


# ---------------------------------------------------------------------- unhappy


def test_a_project_that_is_not_there_is_an_error(project: Path) -> None:
    with pytest.raises(ConfigError, match="does not exist"):
        RemoteDecoratorScanner(project / "missing")


def test_a_file_that_is_not_python_fails_the_scan_with_its_line(write) -> None:
    root = write({"good.py": ENDPOINT.format(name="f"), "pkg/bad.py": "x = 1\ndef f(:\n"})
    with pytest.raises(BuildError, match=r"pkg/bad\.py:2: not valid Python"):
        scan(root)


def test_a_file_with_a_wrong_encoding_fails_the_scan(project: Path) -> None:
    (project / "latin.py").write_bytes("x = 'é'\n".encode("latin-1"))
    with pytest.raises(BuildError, match=r"latin\.py"):
        scan(project)


def test_every_problem_is_told_at_once(write) -> None:
    root = write({"a.py": "from flamepy import remote\n@remote(1)\ndef f(): ...\n", "b.py": "def f(:\n"})
    with pytest.raises(BuildError) as caught:
        scan(root)
    assert [problem.file for problem in caught.value.problems] == ["a.py", "b.py"]
    assert "2 problems" in str(caught.value)


def test_a_file_no_import_can_name_is_refused(write) -> None:
    with pytest.raises(BuildError, match="cannot be imported"):
        scan(write({"v1.2/work.py": ENDPOINT.format(name="f")}))


def test_a_resource_that_another_module_changes_is_refused(write) -> None:
    files = {
        "config.py": RESOURCES,
        "app.py": "from flamepy import remote\nfrom config import gpu\n@remote(gpu)\ndef f(): ...\n",
        "zz.py": "import config\nconfig.gpu = None\n",
    }
    with pytest.raises(BuildError, match=r"zz\.py:2: config\.gpu is changed from outside"):
        scan(write(files))


def test_a_star_brings_only_what_the_module_lists(write) -> None:
    files = {"lib.py": "from flamepy import remote\n__all__ = ['x']\nx = 1\n", "app.py": "from lib import *\n@remote\ndef f(): ...\n"}
    with pytest.raises(BuildError, match=r"app\.py:2: @remote cannot be resolved"):
        scan(write(files))


def test_nothing_of_the_project_is_run(write, project: Path) -> None:
    text = f"open({str(project / 'witness')!r}, 'w')\nimport missing_module\n" + ENDPOINT.format(name="f")
    assert names(write({"app.py": text, "setup.py": "raise SystemExit(1)\n"})) == ["f"]
    assert not (project / "witness").exists()


def test_a_project_without_endpoints_has_none(write) -> None:
    assert scan(write("def f(): ...\n")) == []


# ---------------------------------------------------------------------- modules of one project


def test_a_resource_is_found_through_the_project_s_modules(write) -> None:
    files = {
        "config/__init__.py": "from .resources import gpu\nfrom . import resources as res\n",
        "config/resources.py": RESOURCES,
        "a.py": "from flamepy import remote\nfrom config import gpu\n@remote(gpu)\ndef a(): ...\n",
        "b.py": "from flamepy import remote\nimport config.resources\n@remote(config.resources.cpu)\ndef b(): ...\n",
        "c.py": "from flamepy import remote\nimport config.resources as r\n@remote(r.gpu)\ndef c(): ...\n",
        "d.py": "from flamepy import remote\nfrom config.resources import *\n@remote(cpu)\ndef d(): ...\n",
        "e.py": "from flamepy import remote\nfrom config import res\n@remote(res.cpu)\ndef e(): ...\n",
        "pkg/f.py": "from flamepy import remote\nfrom .near import gpu as g\n@remote(g)\ndef f(): ...\n",
        "pkg/near.py": "from config.resources import gpu\n",
    }
    found = {function.function_name: function.resource_config_name for function in scan(write(files))}
    assert found == {"a": "gpu-1", "b": "cpu-1", "c": "gpu-1", "d": "cpu-1", "e": "cpu-1", "f": "gpu-1"}


def test_the_decorator_is_found_through_a_module_of_the_project(write) -> None:
    files = {
        "lib.py": "from flamepy import remote as task\n" + RESOURCES + "on_gpu = task(gpu)\n",
        "app.py": "from lib import task, cpu, on_gpu\n@task(cpu)\ndef f(): ...\n@on_gpu\ndef g(): ...\n",
    }
    assert [(f.function_name, f.resource_config_name) for f in scan(write(files))] == [("f", "cpu-1"), ("g", "gpu-1")]


def test_modules_that_import_each_other_are_read(write) -> None:
    files = {
        "a.py": "from flamepy import remote, Resource\nr = Resource(name='r')\nimport b\n@remote(r)\ndef f(): ...\n",
        "b.py": "from flamepy import remote\nfrom a import r\n@remote(r)\ndef g(): ...\n",
    }
    assert sorted(names(write(files))) == ["f", "g"]


def test_a_function_of_another_module_can_be_served_under_a_new_name(write) -> None:
    files = {
        "lib.py": "async def compute(): ...\n",
        "app.py": "from flamepy import remote\nfrom lib import compute\nserved = remote()(compute)\n",
    }
    (function,) = scan(write(files))
    assert (function.function_name, function.module_path, function.original) == ("served", "app", "lib:compute")
    assert function.is_async


def test_module_names_are_those_imports_use(write) -> None:
    files = {
        "01_hello/gpu-worker.py": ENDPOINT.format(name="odd"),
        "pkg/__init__.py": ENDPOINT.format(name="package"),
        "src/lib/mod.py": ENDPOINT.format(name="source"),
    }
    found = {function.function_name: function.module_path for function in scan(write(files))}
    assert found == {"odd": "01_hello.gpu-worker", "package": "pkg", "source": "lib.mod"}


# ---------------------------------------------------------------------- what is recorded


def test_functions_are_described(write) -> None:
    text = (
        "from flamepy import remote\n\n"
        "@remote(dependencies=['numpy'], system_dependencies=['ffmpeg'])\n"
        "async def f(a, /, b: int = 3, *c, d: str = 'x', **e) -> int:\n    '''What it does.'''\n"
    )
    (function,) = scan(write(text))
    assert (function.is_async, function.is_class, function.line) == (True, False, 4)
    assert function.parameters == ("a", "b: int = 3", "*c", "d: str = 'x'", "**e")
    assert function.docstring == "What it does."
    assert (function.dependencies, function.system_dependencies) == (("numpy",), ("ffmpeg",))


def test_classes_are_described_with_their_methods(write) -> None:
    text = (
        "from flamepy import remote\n@remote\nclass Model:\n    '''A model.'''\n    def __init__(self, path: str): ...\n"
        "    def run(self, x): ...\n    async def later(self): ...\n    @staticmethod\n    def info(verbose=False): ...\n"
        "    @property\n    def size(self): ...\n    def _hidden(self): ...\n    def __call__(self, x): ...\n"
    )
    (function,) = scan(write(text))
    assert (function.is_class, function.is_async, function.parameters) == (True, False, ("path: str",))
    described = [(method.name, method.is_async, method.parameters) for method in function.methods]
    assert described == [("run", False, ("x",)), ("later", True, ()), ("info", False, ("verbose = False",)), ("__call__", False, ("x",))]


def test_settings_of_the_resource_are_recorded(write) -> None:
    text = (
        "import os\nfrom flamepy import remote, GpuResource\n"
        "r = GpuResource(name='r', gpu=2, memory='4GiB', workers=(1, 5), env={'MODE': 'fast', 'TOKEN': os.environ['T']},\n"
        "                dependencies=['torch'])\n@remote(r)\ndef f(): ...\n"
    )
    (function,) = scan(write(text))
    settings = dict(function.settings)
    assert (settings["gpu"], settings["memory"], settings["workers"]) == (2, 4 << 30, [1, 5])
    assert settings["env"] == {"MODE": "fast", "TOKEN": None}  # a value from outside stays outside
    assert settings["dependencies"] == ["torch"]


def test_keywords_of_the_other_sdk_are_kept(write) -> None:
    text = (
        "from flamepy import *\nr = LiveServerless(name='l', gpus=[GpuGroup.ANY], idleTimeout=5, workersMax=5)\n"
        "@remote(resource_config=r)\ndef f(): ...\n"
    )
    (function,) = scan(write(text))
    assert function.settings["workers"] == [0, 5]
    assert function.settings["options"] == {"gpus": "[GpuGroup.ANY]", "idleTimeout": 5}


# ---------------------------------------------------------------------- which files are read


@pytest.mark.parametrize("directory", [".venv", ".flash", ".runpod", "__pycache__", ".git", "node_modules", ".tox"])
def test_directories_that_are_not_the_project_are_not_read(write, directory: str) -> None:
    assert names(write({"app.py": ENDPOINT.format(name="f"), f"{directory}/x.py": ENDPOINT.format(name="hidden")})) == ["f"]


def test_a_virtual_environment_of_any_name_is_not_read(write) -> None:
    files = {"app.py": ENDPOINT.format(name="f"), "myenv/pyvenv.cfg": "", "myenv/lib/x.py": ENDPOINT.format(name="hidden")}
    assert names(write(files)) == ["f"]


@pytest.mark.parametrize("ignore", [".gitignore", ".flameignore", ".flashignore"])
def test_ignore_files_are_honoured(write, ignore: str) -> None:
    files = {"app.py": ENDPOINT.format(name="f"), "old/x.py": "def broken(:\n", ignore: "# a comment\nold/\n"}
    assert names(write(files)) == ["f"]


def test_excludes_are_honoured(write) -> None:
    assert names(write({"app.py": ENDPOINT.format(name="f"), "old/x.py": "def broken(:\n"}), "old/") == ["f"]


def test_directories_with_special_characters_are_read(write) -> None:
    assert names(write({"a b/c'd/é.py": ENDPOINT.format(name="f")})) == ["f"]


def test_odd_programs_are_read_without_a_complaint(write) -> None:
    files = {
        "cycle.py": "class A: ...\nclass B: ...\nA.b = B\nB.a = A\nD = {}\nD['self'] = D\n",
        "stars.py": "from stars import *\nfrom . import stars\n" + ENDPOINT.format(name="f"),
        "flow.py": "for x in y:\n    z = x\nwhile z:\n    del z\nwith open(z) as (a, *b):\n    a.b.c = b[0] = lambda remote: remote\n",
    }
    assert names(write(files)) == ["f"]
