"""The commands ``flame`` and ``flmctl``."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest


def command(module: str, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys; from {module} import main; sys.argv[0] = 'flame'; main()"
    return subprocess.run(
        [sys.executable, "-c", program, *arguments], capture_output=True, text=True, timeout=60, env={**os.environ, **variables}
    )


def flame(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return command("flamepy.cli", *arguments, **variables)


def flmctl(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return command("flamepy.cli.flmctl", *arguments, **variables)


def test_a_wrong_setting_is_an_error_without_a_traceback(write: Callable[..., Path]) -> None:
    write("pyproject.toml", "[tool.flame]\narchiver = 3\n")
    done = flame("pack")
    assert done.returncode == 1
    assert "did you mean 'archivers'" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", [("nonsense",), ("run", "missing.py"), ("pack", "nowhere")])
def test_wrong_usage_ends_with_status_two(arguments: tuple[str, ...]) -> None:
    assert flame(*arguments).returncode == 2


def test_what_is_not_there_cannot_be_viewed_or_closed() -> None:
    assert flmctl("view", "-a", "nowhere").returncode == 1
    assert flmctl("close", "-s", "nowhere").returncode == 1
    assert flmctl("list").returncode == 2
    assert "not known" in flmctl("view", "-s", "nowhere").stderr


def test_an_engine_that_is_missing_fails_the_doctor_with_the_fix() -> None:
    done = flame("doctor", FLAME_ENGINE="nowhere:")
    assert done.returncode == 1
    assert "FAIL  engine" in done.stdout
    assert "no engine named 'nowhere'; on offer: " in done.stdout
    assert "pip install" not in done.stdout  # a name that does not exist


def test_run_passes_arguments_and_status_through(write: Callable[..., Path]) -> None:
    write("main.py", "import sys, os\nprint(sys.argv[1:], os.environ['FLAME_ENGINE'])\nsys.exit(7)\n")
    done = flame("run", "--engine", "inline", "main.py", "--own", "x")
    assert (done.stdout.strip(), done.returncode) == ("['--own', 'x'] inline", 7)


def test_pack_explains_and_packs(write: Callable[..., Path], project: Path) -> None:
    write("main.py", "x")
    write(".env", "x")
    explained = flame("pack", "--explain")
    assert "+ main.py" in explained.stdout
    assert "- .env   (looks like a secret: .env*)" in explained.stdout
    decisions = json.loads(flame("pack", "--explain", "--json").stdout)["paths"]
    assert {"path": "main.py", "included": True, "reason": "", "secret": False} in decisions
    made = json.loads(flame("pack", "--json", "-o", "out.tar.gz").stdout)
    assert (made["files"], made["size"]) == (1, (project / "out.tar.gz").stat().st_size)


def test_plugins_doctor_and_env_answer_in_json_too() -> None:
    names = {record["name"] for record in json.loads(flame("plugins", "--json").stdout)["plugins"]}
    assert {"archive-tar", "serialize-cloudpickle"} <= names
    assert all(check["ok"] for check in json.loads(flame("doctor", "--json").stdout)["checks"])
    stands = json.loads(flame("env", "list", "--json").stdout)
    assert stands["schema_version"] == 1
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", entry["last_use"]) for entry in stands["entries"])


def test_flmctl_lists_flmrun_and_says_where_sessions_live() -> None:
    listed = flmctl("list", "-a").stdout.splitlines()
    assert listed[0].split() == ["Name", "State", "Tags", "Created", "Shim", "Command"]
    assert listed[1].split()[:2] == ["flmrun", "Enabled"]
    assert "live in the program that made them" in flmctl("list", "-s").stderr
    assert json.loads(flmctl("list", "-a", "--json").stdout)["applications"][0]["name"] == "flmrun"
    assert "description:" in flmctl("view", "-a", "flmrun").stdout


def test_the_default_output_has_no_colours() -> None:
    assert "\x1b[" not in flame("--help", NO_COLOR="1").stdout


def test_a_fault_of_ours_ends_without_a_traceback_unless_it_is_asked_for() -> None:
    program = "from flame_host.cli.output import run\ndef broken(prog_name): raise KeyError('x')\nrun(broken, 'flame')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 70
    assert "FLAME_DEBUG=1" in done.stderr
    assert "Traceback" not in done.stderr
    asked = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, "FLAME_DEBUG": "1"})
    assert "Traceback" in asked.stderr


def test_times_say_their_zone() -> None:
    from flame_host.cli.output import timestamp

    assert timestamp(1_700_000_000.5) == "2023-11-14T22:13:20.500Z"
    assert timestamp(0) is None


def test_applications_are_registered_and_unregistered_as_flame_writes_them(write: Callable[..., Path]) -> None:
    write("app.yaml", "metadata: {name: mine}\nspec: {shim: Host, command: python3, arguments: [-m, x]}\n")
    assert flmctl("register", "-f", "app.yaml").stdout == "registered mine\n"
    write("app.yaml", "metadata: {name: mine}\nspec: {comand: python3}\n")
    assert "comand" in flmctl("register", "-f", "app.yaml").stderr
    write("app.yaml", "spec: {}\n")
    assert "metadata" in flmctl("register", "-f", "app.yaml").stderr


def test_debug_stops_where_a_task_fails_with_its_variables(write: Callable[..., Path]) -> None:
    write(
        "main.py",
        "from flamepy import Runner\ndef half(n):\n    rest = n % 2\n    assert rest == 0\n    return n // 2\n"
        "with Runner('d', package=False) as rr:\n    svc = rr.service(half)\n    print(svc(4).get())\n    try:\n        svc(3).get()\n"
        "    except AssertionError:\n        print('went on')\n",
    )
    program = "import sys; from flamepy.cli import main; sys.argv[0] = 'flame'; main()"
    done = subprocess.run(
        [sys.executable, "-c", program, "debug", "main.py"], input="p rest\np n\nc\n", capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert "main.py(4)half()" in done.stdout
    assert "(Pdb) 1" in done.stdout
    assert "(Pdb) 3" in done.stdout
    assert done.stdout.rstrip().endswith("went on")
