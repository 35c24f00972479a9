"""No call gets stuck, whatever else goes on: a minute of the chaos load in all, beside foreign load on every core.

``FLAME_CHAOS_SECONDS=5`` makes it shorter, ``make soak`` longer.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

CONFIGURATIONS = [("local", 1, 1), ("local", 2, 3), ("local", 3, 8), ("inline", 4, 3)]
SECONDS = float(os.environ.get("FLAME_CHAOS_SECONDS", "60")) / len(CONFIGURATIONS)


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize(("engine", "seed", "threads"), CONFIGURATIONS)
def test_under_a_mixed_load_every_call_ends_as_promised(engine: str, seed: int, threads: int, tmp_path: Path):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAME_")}
    command = [sys.executable, str(Path(__file__).with_name("chaos.py")), "--foreign-load", "--engine", engine]
    done = subprocess.run(
        [*command, "--seed", str(seed), "--threads", str(threads), "--minutes", str(SECONDS / 60)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS + 200,
        env={**environment, "HOME": str(tmp_path), "TMPDIR": str(tmp_path), "FLAME_HOST_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stdout
