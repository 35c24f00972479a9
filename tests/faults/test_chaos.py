"""No call gets stuck, whatever else goes on: a minute of the chaos load in all, beside foreign load on every core.

``FLAME_CHAOS_SECONDS=5`` makes it shorter, ``make soak`` longer.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from flame_host.testing.processes import eventually

SECONDS = float(os.environ.get("FLAME_CHAOS_SECONDS", "60"))
CONFIGURATIONS = [("local", 1, 1, 0.3), ("local", 2, 3, 0.3), ("local", 3, 8, 0.3), ("inline", 4, 3, 0.1)]


def chaos(home: Path, *options: str, seconds: float = 0) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAME_")}
    return subprocess.run(
        [sys.executable, str(Path(__file__).with_name("chaos.py")), "--minutes", str(seconds / 60), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=seconds + 200,
        env={**environment, "HOME": str(home), "TMPDIR": str(home), "FLAME_HOST_OFFLINE": "1"},
    )


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize(("engine", "seed", "threads", "share"), CONFIGURATIONS)
def test_under_a_mixed_load_every_call_ends_as_promised(engine: str, seed: int, threads: int, share: float, tmp_path: Path):
    load = ("--engine", engine, "--seed", str(seed), "--threads", str(threads), "--foreign-load")
    done = chaos(tmp_path, *load, seconds=share * SECONDS)
    assert done.returncode == 0, done.stdout


def test_a_standstill_ends_the_load_with_the_state_of_everything(tmp_path: Path):
    done = chaos(tmp_path, "--threads", "2", "--patience", "0", "--kinds", "single_calls", "bursts", "--foreign-load", seconds=30)
    assert done.returncode == 1
    assert re.search(r"^STUCK: seed 1, 2 threads, engine local", done.stdout, re.MULTILINE), done.stdout
    for part in ("RunnerService work (stateless, open)", "SessionInfo(", "its threads: ", "most recent call first"):
        assert part in done.stdout
    pids = [int(pid) for pid in re.findall(r"^  (\d+) below", done.stdout, re.MULTILINE)]
    assert len(pids) > 3
    assert eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), 5)
