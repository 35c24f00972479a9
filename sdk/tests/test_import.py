"""What ``import flamepy`` costs."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("grpc", "google.protobuf", "numpy", "pyarrow", "rich", "typer", "pathspec", "yaml", "cloudpickle", "asyncio", "pluggy")


def test_importing_flamepy_loads_nothing_heavy() -> None:
    probe = f"import sys, flamepy; print([name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_runner_itself_loads_neither_wire_nor_arrays_nor_the_command_line() -> None:
    heavy = ("grpc", "google.protobuf", "numpy", "pyarrow", "rich", "typer", "pathspec", "yaml", "cloudpickle")
    probe = f"import sys; from flamepy import Runner, FlameContext; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_importing_flamepy_takes_at_most_sixty_milliseconds() -> None:
    probe = "import time; began = time.perf_counter(); import flamepy; print(time.perf_counter() - began)"
    runs = [float(subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout) for _ in range(5)]
    assert min(runs) < 0.060
