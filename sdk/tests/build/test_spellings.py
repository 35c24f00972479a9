"""Every way to write the decorator: found with the right name, module and resource, or refused with file and line; never wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from flamepy.build import BuildError, RemoteDecoratorScanner

GPU = 'from flamepy import GpuResource, remote\ngpu = GpuResource(name="gpu-1")\n'

FOUND = {
    "a bare decorator": ("from flamepy import remote\n@remote\ndef f(): ...\n", "f", "default", "Resource"),
    "a bare decorator with parentheses": ("from flamepy import remote\n@remote()\ndef f(): ...\n", "f", "default", "Resource"),
    "a resource by name": (GPU + "@remote(gpu)\ndef f(): ...\n", "f", "gpu-1", "GpuResource"),
    "a resource by keyword": (GPU + "@remote(resource_config=gpu)\ndef f(): ...\n", "f", "gpu-1", "GpuResource"),
    "an alias in the import": (
        'from flamepy import remote as r, CpuResource as C\nc = C(name="cpu-1")\n@r(c)\ndef f(): ...\n', "f", "cpu-1", "CpuResource",
    ),
    "the module": ('import flamepy\n@flamepy.remote(flamepy.Resource(name="a"))\ndef f(): ...\n', "f", "a", "Resource"),
    "the module under an alias": ('import flamepy as f\n@f.remote(f.CpuResource(name="a"))\ndef g(): ...\n', "g", "a", "CpuResource"),
    "import star": ('from flamepy import *\n@remote(LiveServerless(name="live"))\ndef f(): ...\n', "f", "live", "LiveServerless"),
    "an alias by assignment": (GPU + "on_gpu = remote\n@on_gpu(gpu)\ndef f(): ...\n", "f", "gpu-1", "GpuResource"),
    "a decorator kept under a name": (GPU + "on_gpu = remote(gpu)\n@on_gpu\ndef f(): ...\n", "f", "gpu-1", "GpuResource"),
    "an assignment of the call": (GPU + "def f(): ...\ng = remote(gpu)(f)\n", "g", "gpu-1", "GpuResource"),
    "an assignment to the same name": (GPU + "def f(): ...\nf = remote(gpu)(f)\n", "f", "gpu-1", "GpuResource"),
    "an annotated assignment of the call": (GPU + "def f(): ...\ng: object = remote(gpu)(f)\n", "g", "gpu-1", "GpuResource"),
    "an annotated resource": (
        'from flamepy import *\nc: CpuResource = CpuResource(name="c")\n@remote(c)\ndef f(): ...\n', "f", "c", "CpuResource",
    ),
    "a constant name": (
        'from flamepy import *\nNAME = "from-constant"\nc = CpuResource(name=NAME)\n@remote(c)\ndef f(): ...\n',
        "f", "from-constant", "CpuResource",
    ),
    "a name put together": (
        'from flamepy import *\nS = "prod"\nc = CpuResource(name=f"{S}-cpu" + "-1")\n@remote(c)\ndef f(): ...\n',
        "f", "prod-cpu-1", "CpuResource",
    ),
    "keywords from a dict": (
        'from flamepy import *\nO = {"name": "opt", "cpu": 2}\n@remote(CpuResource(**O))\ndef f(): ...\n', "f", "opt", "CpuResource",
    ),
    "a resource from a function": (
        'from flamepy import *\ndef make(name, cpu=1):\n    "Make it."\n    full = f"{name}-x"\n'
        '    return CpuResource(name=full, cpu=cpu)\n@remote(make("c", cpu=2))\ndef f(): ...\n', "f", "c-x", "CpuResource",
    ),
    "keywords from dict()": (
        'from flamepy import *\nO = dict(cpu=2)\n@remote(CpuResource(**dict(O, name="d")))\ndef f(): ...\n', "f", "d", "CpuResource",
    ),
    "a resource named by its variable": (
        "from flamepy import *\nsmall = CpuResource(cpu=2)\n@remote(small)\ndef f(): ...\n", "f", "small", "CpuResource",
    ),
    "a resource named by its function": ("from flamepy import *\n@remote(CpuResource(cpu=2))\ndef f(): ...\n", "f", "f", "CpuResource"),
    "a known condition": (GPU + "ON = True\nif ON:\n    @remote(gpu)\n    def f(): ...\n", "f", "gpu-1", "GpuResource"),
    "a name with a default": (
        'import os\nfrom flamepy import *\nc = Resource(name=os.environ.get("N", "n"))\n@remote(c)\ndef f(): ...\n', "f", "n", "Resource",
    ),
    "a positional name": ('from flamepy import *\n@remote(Resource("p"))\ndef f(): ...\n', "f", "p", "Resource"),
    "an attribute of a class": (
        'from flamepy import *\nclass Cfg:\n    gpu = GpuResource(name="in-class")\n@remote(Cfg.gpu)\ndef f(): ...\n',
        "f", "in-class", "GpuResource",
    ),
    "an attribute set later": (
        'from flamepy import *\nclass C: ...\nC.g = GpuResource(name="set")\n@remote(C.g)\ndef f(): ...\n', "f", "set", "GpuResource",
    ),
    "a decorator in a dict": (GPU + 'D = {"g": remote(gpu)}\n@D["g"]\ndef f(): ...\n', "f", "gpu-1", "GpuResource"),
    "an entry of a dict": (
        'from flamepy import *\nR = {"gpu": GpuResource(name="in-dict")}\n@remote(R["gpu"])\ndef f(): ...\n', "f", "in-dict", "GpuResource",
    ),
    "unpacked resources": (
        'from flamepy import *\na, b = CpuResource(name="a"), GpuResource(name="b")\n@remote(b)\ndef f(): ...\n', "f", "b", "GpuResource",
    ),
    "a resource bound twice": (
        'from flamepy import *\nc = Resource(name="old")\nc = Resource(name="new")\n@remote(c)\ndef f(): ...\n', "f", "new", "Resource",
    ),
    "a resource bound again later": (
        'from flamepy import *\nc = Resource(name="used")\n@remote(c)\ndef f(): ...\nc = Resource(name="later")\n', "f", "used", "Resource",
    ),
    "a type of the project": (
        'from flamepy import *\nclass Big(GpuResource): ...\n@remote(Big(name="big"))\ndef f(): ...\n', "f", "big", "Big",
    ),
    "one decorator of several": (
        GPU + "import functools\n@functools.lru_cache\n@remote(gpu)\n@functools.cache\ndef f(): ...\n", "f", "gpu-1", "GpuResource",
    ),
    "a fallback import": (
        "try:\n    from flamepy import remote\nexcept ImportError:\n    def remote(f): return f\n@remote\ndef f(): ...\n",
        "f", "default", "Resource",
    ),
    "getattr": ('import flamepy\nr = getattr(flamepy, "remote")\n@r\ndef f(): ...\n', "f", "default", "Resource"),
    "a nested class": (GPU + "class Outer:\n    @remote(gpu)\n    class Inner: ...\n", "Outer.Inner", "gpu-1", "GpuResource"),
    "the other SDK's keywords": (
        'from flamepy import *\nc = LiveServerless(name="l", gpus=[G.ANY], workersMax=5)\n@remote(resource_config=c)\ndef f(): ...\n',
        "f", "l", "LiveServerless",
    ),
}  # fmt: skip

REFUSED = {
    "a decorator that depends": (
        GPU + "cpu = GpuResource(name='c')\non = remote(gpu) if FAST else remote(cpu)\n@on\ndef f(): ...\n", 5, "depends on the condition",
    ),
    "a decorator bound in branches": (
        GPU + "if FAST:\n    on = remote(gpu)\nelse:\n    on = remote()\n@on\ndef f(): ...\n", 7, "depends on the condition",
    ),
    "an import that depends": (
        "if FAST:\n    from flamepy import remote\nelse:\n    from ray import remote\n@remote\ndef f(): ...\n", 5, "may be @remote",
    ),
    "another library first": (
        "try:\n    from ray import remote\nexcept ImportError:\n    from flamepy import remote\n@remote\ndef f(): ...\n",
        5, "may be @remote",
    ),
    "a resource that depends on an exception": (
        GPU + "try:\n    c = GpuResource(name='g')\nexcept OSError:\n    c = GpuResource(name='h')\n@remote(c)\ndef f(): ...\n",
        7, "is reached",
    ),
    "a dict that is changed": (
        GPU + "R = {'g': gpu}\nR['g'] = GpuResource(name='other')\n@remote(R['g'])\ndef f(): ...\n", 5, "line 4 changes it",
    ),
    "a dict that is updated": (GPU + "R = {'g': gpu}\nR.update(more())\n@remote(R['g'])\ndef f(): ...\n", 5, "line 4 may change it"),
    "a dict that a function changes": (
        GPU + "def g():\n    R['g'] = 1\nR = {'g': gpu}\n@remote(R['g'])\ndef f(): ...\n", 6, "a function changes R, at line 4",
    ),
    "keywords that are changed": (
        "from flamepy import *\nO = {'name': 'o'}\nO['name'] = 'p'\n@remote(Resource(**O))\ndef f(): ...\n", 4, "cannot be read",
    ),
    "decorators in a list": (GPU + "ds = [remote(gpu)]\nfs = list(map(ds[0], ()))\n", 3, "cannot be resolved"),
    "the decorator bound over": (GPU + "import functools\nremote = functools.partial(remote, gpu)\n@remote()\ndef f(): ...\n", 4, "remote"),
    "the decorator as an argument": (GPU + "import tools\ntools.apply(to=remote)\n", 4, "cannot be resolved"),
    "an expression nobody reads": (GPU + "on = remote and remote(gpu)\n@on\ndef f(): ...\n", 3, "cannot be resolved"),
    "a walrus": (GPU + "print(on := remote(gpu))\n@on\ndef f(): ...\n", 3, "cannot be resolved"),
    "a name from the environment": (
        'import os\nfrom flamepy import *\nc = Resource(name=os.environ["N"])\n@remote(c)\ndef f(): ...\n', 3, "name of the resource",
    ),
    "a resource from a call": ("from flamepy import *\ndef make(): ...\n@remote(make())\ndef f(): ...\n", 3, "is a call"),
    "a resource that depends": (
        'from flamepy import *\nif FAST:\n    c = Resource(name="a")\nelse:\n    c = Resource(name="b")\n@remote(c)\ndef f(): ...\n',
        6, "depends on the condition",
    ),
    "a resource that a function changes": (
        'from flamepy import *\nc = Resource(name="a")\ndef g():\n    global c\n    c = 1\n@remote(c)\ndef f(): ...\n', 6, "by global",
    ),
    "something that is no resource": ("from flamepy import *\n@remote(42)\ndef f(): ...\n", 2, "no resource"),
    "a resource from outside": ("from flamepy import *\nfrom elsewhere import c\n@remote(c)\ndef f(): ...\n", 3, "not a resource of this"),
    "a resource that is not there": ("from flamepy import *\n@remote(missing)\ndef f(): ...\n", 2, "missing is not bound"),
    "a method": (GPU + "class A:\n    @remote(gpu)\n    def m(self): ...\n", 4, "put @remote on the class"),
    "a function in a function": (GPU + "def g():\n    @remote(gpu)\n    def f(): ...\n", 4, "inside a function"),
    "an import in a function": ("def g():\n    from flamepy import remote\n    @remote\n    def f(): ...\n", 3, "inside a function"),
    "a lambda": (GPU + "f = remote(gpu)(lambda x: x)\n", 3, "no function or class"),
    "a call whose result is dropped": (GPU + "def f(): ...\nremote(gpu)(f)\n", 4, "not kept under a name"),
    "a call that fills a list": (GPU + "def f(): ...\nfs = [remote(gpu)(f)]\n", 4, "not kept under a name"),
    "a loop": (GPU + "fs = [remote(gpu)(f) for f in ()]\n", 3, "remote"),
    "a function of one's own around it": (GPU + "def on(c):\n    return remote(c)\n@on(gpu)\ndef f(): ...\n", 4, "cannot be resolved"),
    "a partial": (GPU + "import functools\non = functools.partial(remote, gpu)\n@on()\ndef f(): ...\n", 4, "cannot be resolved"),
    "a condition": (GPU + "import sys\nif sys.argv:\n    @remote(gpu)\n    def f(): ...\n", 5, "only under a condition"),
    "a script's own block": (GPU + 'if __name__ == "__main__":\n    @remote(gpu)\n    def f(): ...\n', 4, "as a script"),
    "a name bound again": (GPU + "@remote(gpu)\ndef f(): ...\nf = 1\n", 3, "something else further down"),
    "the same name twice": (GPU + "@remote(gpu)\ndef f(): ...\n@remote(gpu)\ndef f(): ...\n", 3, "something else further down"),
    "the decorator twice": (GPU + "@remote(gpu)\n@remote(gpu)\ndef f(): ...\n", 3, "twice"),
    "a star from outside": ("from toolbox import *\n@remote\ndef f(): ...\n", 2, "toolbox"),
    "a name nothing binds": ("@remote\ndef f(): ...\n", 1, "nothing in this module binds"),
    "an unknown argument": (GPU + "@remote(gpu, retries=3)\ndef f(): ...\n", 3, "no argument 'retries'"),
    "dependencies that are computed": (GPU + "@remote(gpu, dependencies=load())\ndef f(): ...\n", 3, "dependencies of @remote"),
    "a wrong setting": ('from flamepy import *\nc = CpuResource(name="c", gpu=1)\n@remote(c)\ndef f(): ...\n', 2, "with gpu=1"),
    "an unknown setting": ('from flamepy import *\nc = CpuResource(name="c", gpus=1)\n@remote(c)\ndef f(): ...\n', 2, "gpus"),
    "arguments that are unpacked": (GPU + "@remote(*args)\ndef f(): ...\n", 3, "cannot be read"),
}  # fmt: skip

NOT_OURS = {
    "ray": "import ray\n@ray.remote\ndef f(): ...\n",
    "ray, by name": "from ray import remote\n@remote(num_gpus=1)\ndef f(): ...\n",
    "a function of the project": "def remote(f): return f\n@remote\ndef f(): ...\n",
    "an attribute of an object": "import modal\napp = modal.App()\n@app.remote\ndef f(): ...\n",
    "a parameter": "import flamepy\ndef g(remote):\n    @remote\n    def f(): ...\n",
    "another name of ours": "from flamepy import Runner\n@Runner\ndef f(): ...\n",
    "switched off": "from flamepy import *\n@remote(Resource(name='a'), local=True)\ndef f(): ...\n",
    "text": '"""@remote"""\n# @remote\ntext = "@remote"\n',
}


@pytest.mark.parametrize("spelling", FOUND)
def test_a_spelling_is_found_with_its_name_and_resource(project: Path, spelling: str) -> None:
    text, name, resource, kind = FOUND[spelling]
    (project / "app.py").write_text(text)
    (found,) = RemoteDecoratorScanner(project).discover_remote_functions()
    assert (found.function_name, found.module_path) == (name, "app")
    assert (found.resource_config_name, found.resource_type) == (resource, kind)


@pytest.mark.parametrize("spelling", [spelling for spelling in FOUND if spelling != "the other SDK's keywords"])
def test_what_is_found_is_what_the_program_itself_makes(project: Path, spelling: str) -> None:
    """Run the module, and compare: the scanner must not only find something, but be right."""
    text, name, resource, kind = FOUND[spelling]
    names: dict[str, Any] = {"__name__": "app"}
    exec(compile(text, "app.py", "exec"), names)
    made: Any = names[name.partition(".")[0]]
    for part in name.split(".")[1:]:
        made = getattr(made, part)
    made = getattr(made, "__wrapped__", made) if not hasattr(made, "resource") else made
    assert (made.resource.name, type(made.resource).__name__) == (resource, kind)


@pytest.mark.parametrize("spelling", REFUSED)
def test_what_cannot_be_resolved_is_refused_with_file_and_line(project: Path, spelling: str) -> None:
    text, line, reason = REFUSED[spelling]
    (project / "app.py").write_text(text)
    with pytest.raises(BuildError) as caught:
        RemoteDecoratorScanner(project).discover_remote_functions()
    assert [problem for problem in caught.value.problems if problem.file == "app.py" and problem.line == line and reason in problem.message]


@pytest.mark.parametrize("spelling", NOT_OURS)
def test_a_look_alike_is_not_ours(project: Path, spelling: str) -> None:
    (project / "app.py").write_text(NOT_OURS[spelling])
    assert RemoteDecoratorScanner(project).discover_remote_functions() == []
