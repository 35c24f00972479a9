"""``python -m benchmarks [W1 W2 …] [--quick] [--json FILE] [--markdown]``: ours, the peers and the limits in one table."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import shutil
import signal
import sys
import tempfile
from pathlib import Path

import platformdirs

from benchmarks._contender import Options
from benchmarks._measure import Row, print_markdown, print_table

WORKLOADS = {
    "W1": "w1_latency",
    "W2": "w2_throughput",
    "W2s": "w2s_pending",
    "W3": "w3_arrays",
    "W4": "w4_start",
    "W5": "w5_archives",
    "W6": "w6_import",
    "W7": "w7_idle",
}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Ours beside the peers and the limits, in one run.")
    parser.add_argument("workloads", nargs="*", metavar="W", help=f"some of {' '.join(WORKLOADS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="a tenth of the work and two rounds: to see that it runs")
    parser.add_argument("--rounds", type=int, default=5, help="turns of every contender (5)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every figure of every round")
    parser.add_argument("--markdown", action="store_true", help="print the table as Markdown")
    cache = Path(platformdirs.user_cache_dir("flame-host")) / f"benchmarks-{sys.implementation.cache_tag}"
    parser.add_argument("--peers", type=Path, default=cache, metavar="DIR", help="the peers' environment; made when it is not there")
    given = parser.parse_args()
    unknown = set(given.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"there is no workload {', '.join(sorted(unknown))}; there are {', '.join(WORKLOADS)}")
    return given


def main() -> None:
    given = parse()
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    scratch = Path(tempfile.mkdtemp(prefix="flame-bench-"))
    options = Options(2 if given.quick else given.rounds, given.quick, given.peers.absolute(), scratch)
    rows: list[Row] = []
    try:
        for name in given.workloads or WORKLOADS:
            rows += importlib.import_module(f"benchmarks.{WORKLOADS[name]}").rows(options)
            if given.json:  # after each, so that a run that is stopped leaves what it has
                given.json.write_text(json.dumps([row.as_json() for row in rows], indent=1) + "\n")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    (print_markdown if given.markdown else print_table)(rows)


if __name__ == "__main__":
    main()
