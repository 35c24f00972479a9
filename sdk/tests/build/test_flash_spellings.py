"""Programs written for RunPod Flash, as they are: found with the right name, type and route, or refused with file and line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import flamepy.flash
import pytest
from flamepy.build import BuildError, RemoteDecoratorScanner
from flamepy.build.values import FLASH_NAMES
from flamepy.flash.names import IMPORT_NAMES, MODULES

LIVE = 'from runpod_flash import GpuGroup, LiveServerless, remote\ngpu = LiveServerless(name="gpu-1", gpus=[GpuGroup.ADA_24])\n'
EP = "from runpod_flash import *\n"

FOUND = {
    "remote with a resource": (LIVE + "@remote(gpu)\ndef f(): ...\n", "f", "gpu-1", "LiveServerless", None),
    "the older name": ((LIVE + "@remote(gpu)\ndef f(): ...\n").replace("runpod_flash", "tetra_rp"), "f", "gpu-1", "LiveServerless", None),
    "positional dependencies": (LIVE + '@remote(gpu, ["six"])\ndef f(): ...\n', "f", "gpu-1", "LiveServerless", None),
    "an unknown argument of remote": (LIVE + "@remote(gpu, turbo=True)\ndef f(): ...\n", "f", "gpu-1", "LiveServerless", None),
    "an import with a fallback": (
        "try:\n    from runpod_flash import remote, LiveServerless\nexcept ImportError:\n    remote = None\n    LiveServerless = dict\n"
        'c = LiveServerless(name="c")\n@remote(c)\ndef f(): ...\n', "f", "c", "LiveServerless", None,
    ),
    "one name or the other": (
        "try:\n    from runpod_flash import remote, LiveServerless\nexcept ImportError:\n    from tetra_rp import remote, LiveServerless\n"
        "c = LiveServerless(name='c')\n@remote(c)\ndef f(): ...\n", "f", "c", "LiveServerless", None,
    ),
    "a flag set by the import": (
        "try:\n    import runpod_flash\n    HAVE = True\nexcept ImportError:\n    HAVE = False\nif HAVE:\n"
        "    c = runpod_flash.LiveServerless(name='c')\n    @runpod_flash.remote(c)\n    def f(): ...\n", "f", "c", "LiveServerless", None,
    ),
    "a module inside": (
        "from runpod_flash.core.resources import LiveServerless\nfrom runpod_flash.client import remote\n"
        "@remote(LiveServerless(name='c'))\ndef f(): ...\n", "f", "c", "LiveServerless", None,
    ),
    "an endpoint": (EP + '@Endpoint(name="e", gpu=GpuGroup.ANY, workers=(0, 2))\nasync def f(): ...\n', "f", "e", "Endpoint", None),
    "an endpoint by position": (EP + '@Endpoint("e", cpu="cpu3c-2-4")\ndef f(): ...\n', "f", "e", "Endpoint", None),
    "an endpoint without a name": (EP + "@Endpoint(gpu=GpuType.ANY)\ndef f(): ...\n", "f", "f", "Endpoint", None),
    "an endpoint kept under a name": (EP + 'e = Endpoint(name="x")\n@e\ndef f(): ...\n', "f", "x", "Endpoint", None),
    "an endpoint called": (EP + 'def f(): ...\ng = Endpoint(name="x")(f)\n', "g", "x", "Endpoint", None),
    "an endpoint on a class": (EP + '@Endpoint(name="x")\nclass F:\n    def m(self): ...\n', "F", "x", "Endpoint", None),
    "a route": (EP + 'api = Endpoint(name="a")\n@api.get("/x")\ndef f(): ...\n', "f", "a", "Endpoint", ("GET", "/x")),
    "a route by keyword": (EP + 'api = Endpoint(name="a")\n@api.patch(path="/x")\ndef f(): ...\n', "f", "a", "Endpoint", ("PATCH", "/x")),
    "a route without a name": (EP + 'api = Endpoint()\n@api.post("/x")\ndef f(): ...\n', "f", "api", "Endpoint", ("POST", "/x")),
    "a route put together": (
        EP + 'V = "/v1"\napi = Endpoint(name="a")\n@api.delete(V + "/x")\ndef f(): ...\n', "f", "a", "Endpoint", ("DELETE", "/v1/x"),
    ),
    "a route of a load balancer": (
        EP + 'lb = CpuLiveLoadBalancer(name="lb")\n@remote(lb, method="post", path="/x")\ndef f(): ...\n',
        "f", "lb", "CpuLiveLoadBalancer", ("POST", "/x"),
    ),
    "a load balancer without a route": (
        EP + '@remote(LiveLoadBalancer(name="l"))\ndef f(): ...\n', "f", "l", "LiveLoadBalancer", None,
    ),
    "an endpoint beside a client": (
        EP + 'other = Endpoint(id="abc")\nasync def g():\n    return await other.runsync({})\n@Endpoint(name="e")\ndef f(): ...\n',
        "f", "e", "Endpoint", None,
    ),
    "a client in a function": (
        EP + '@Endpoint(name="e")\ndef f():\n    return Endpoint(image="vllm", name="v").get("/x")\n', "f", "e", "Endpoint", None,
    ),
    "a type it does not know": (EP + '@Endpoint(name="e", gpu=GpuType.QUANTUM_1)\ndef f(): ...\n', "f", "e", "Endpoint", None),
    "a keyword it does not know": (EP + '@Endpoint(name="e", warp=9)\ndef f(): ...\n', "f", "e", "Endpoint", None),
}  # fmt: skip

REFUSED = {
    "a decorator it does not know": ("from runpod_flash import stub\n@stub.function()\ndef f(): ...\n", 2, "not known here"),
    "a client as a decorator": (EP + '@Endpoint(id="abc")\ndef f(): ...\n', 2, "is a client"),
    "an endpoint inside a function": (EP + 'def g():\n    @Endpoint(name="e")\n    def f(): ...\n', 3, "inside a function"),
    "an endpoint made in a function": (EP + 'def g(f):\n    return Endpoint(name="e")(f)\n', 3, "stands inside g"),
    "an endpoint that nothing is on": (EP + 'e = Endpoint(name="e")\nregister(e)\n', 2, "nothing that can be seen"),
    "a route in a function": (EP + 'a = Endpoint(name="a")\ndef g():\n    @a.get("/x")\n    def f(): ...\n', 4, "inside a function"),
    "a route with a computed path": (EP + 'a = Endpoint(name="a")\n@a.get(path())\ndef f(): ...\n', 3, "the route of f cannot be resolved"),
    "a route without a slash": (EP + 'a = Endpoint(name="a")\n@a.get("x")\ndef f(): ...\n', 3, "starts with a slash"),
    "a reserved route": (EP + 'a = Endpoint(name="a")\n@a.get("/ping")\ndef f(): ...\n', 3, "is reserved"),
    "a route that is dropped": (EP + 'a = Endpoint(name="a")\na.get("/x")\n', 3, "cannot be resolved"),
    "a method HTTP does not have": (EP + '@remote(LiveLoadBalancer(name="l"), method="FETCH", path="/x")\ndef f(): ...\n', 2, "no HTTP"),
    "a route on a class": (EP + 'a = Endpoint(name="a")\n@a.get("/x")\nclass F: ...\n', 3, "is a class"),
    "a gpu and a cpu": (EP + '@Endpoint(name="e", gpu=GpuGroup.ANY, cpu="cpu3c-1-2")\ndef f(): ...\n', 2, "gpu= or cpu="),
    "an endpoint passed on": (EP + 'import functools\non = functools.partial(Endpoint, name="e")\n@on()\ndef f(): ...\n', 3, "Endpoint"),
    "a loop of endpoints": (EP + 'for f in fs:\n    Endpoint(name="e")(f)\n', 3, "no function or class of this project"),
}  # fmt: skip


@pytest.mark.parametrize("spelling", FOUND)
def test_a_flash_program_is_found_as_it_is(project: Path, spelling: str) -> None:
    text, name, resource, kind, route = FOUND[spelling]
    (project / "app.py").write_text(text)
    (found,) = RemoteDecoratorScanner(project).discover_remote_functions()
    assert (found.function_name, found.resource_config_name, found.resource_type, found.route) == (name, resource, kind, route)


@pytest.mark.parametrize("spelling", REFUSED)
def test_what_a_flash_program_leaves_open_is_refused_with_file_and_line(project: Path, spelling: str) -> None:
    text, line, reason = REFUSED[spelling]
    (project / "app.py").write_text(text)
    with pytest.raises(BuildError) as caught:
        RemoteDecoratorScanner(project).discover_remote_functions()
    told = [(problem.line, problem.message) for problem in caught.value.problems]
    assert any(at == line and reason in message for at, message in told), told


def test_what_is_found_is_what_the_programs_make_under_the_stand_in(project: Path) -> None:
    """All of the spellings at work: the scanner and the objects of the running program must agree."""
    for number, (text, *_) in enumerate(FOUND.values()):
        (project / f"app{number}.py").write_text(text)
    script = "import importlib, sys\nfor n in range(int(sys.argv[1])):\n    m = importlib.import_module(f'app{n}')\n"
    script += "    f = getattr(m, sys.argv[2 + n]); print(f.resource.name, getattr(f, 'route', None))\n"
    names = [name for _, name, *_ in FOUND.values()]
    order = [sys.executable, "-c", script, str(len(names)), *names]
    done = subprocess.run(
        order,
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{MODULES}:{project}"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"{resource} {route}" for _, _, resource, _, route in FOUND.values()]


def test_the_scanner_knows_just_the_names_there_are() -> None:
    assert set(flamepy.flash.__all__) == FLASH_NAMES
    assert {path.name for path in MODULES.iterdir() if path.is_dir()} >= set(IMPORT_NAMES)


def test_what_is_passed_on_as_it_is_written_is_told(project: Path) -> None:
    (project / "app.py").write_text(
        EP + 'import os\n@Endpoint(name="e", gpu=GpuType.QUANTUM_1, volume=NetworkVolume(name="v", size=5), warp=9,\n'
        '  env={"A": "1", "B": os.environ.get("HF_TOKEN", ""), "C": os.environ["KEY"]})\ndef f(): ...\n'
    )
    scanner = RemoteDecoratorScanner(project)
    (found,) = scanner.discover_remote_functions()
    assert found.settings["options"] == {"gpu": "QUANTUM_1", "volume": {"name": "v", "size": 5}, "warp": 9}
    assert found.settings["env"] == {"A": "1", "B": "", "C": None}
    assert found.to_set == {"B": ("HF_TOKEN", ""), "C": ("KEY", None)}
    assert any("QUANTUM_1" in note and note.startswith("app.py:3:") for note in scanner.notes)
    assert any("warp" in note for note in scanner.notes)
