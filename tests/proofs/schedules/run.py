"""Schedules of the real task path: ``python tests/proofs/schedules/run.py --steps 1000000 [--seed N] [--scenario NAME] [--depth N]``.

Prints what it ran; ends with 1 or 3 and the seed when a schedule does not go on, or gives a wrong value.
"""

from __future__ import annotations

import argparse
import collections
import os
import random
import sys
import time

PERF = time.perf_counter
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import network  # noqa: E402
from scenarios import LIMITS, SCENARIOS  # noqa: E402
from simulation import BoundedStrategy, Finding, Machine, RandomStrategy  # noqa: E402
from world import WATCHED, cleaned  # noqa: E402

MOST = 400_000
_WEIGHTS = {"mixed": 6, "streaming": 1, "sending": 1, "turns": 1, "quiet": 1, "closing": 2, "stateful": 1, "no_start": 2, "small": 1}


def watched(file: str) -> bool:
    return any(part in file for part in WATCHED)


def one(name: str, seed: int, choose: RandomStrategy | BoundedStrategy) -> int:
    """Steps of one run."""
    network.chance.seed(seed)
    machine = Machine(choose, LIMITS[name], MOST, watched)
    with cleaned():
        machine.run(lambda: SCENARIOS[name](random.Random(seed)))
    return machine.steps


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1_000_000, help="of random schedules, in all")
    parser.add_argument("--seed", type=int, default=0, help="the first one; each run has the next")
    parser.add_argument("--runs", type=int, default=1 << 30)
    parser.add_argument("--scenario", choices=SCENARIOS)
    parser.add_argument("--depth", type=int, default=0, help="of the small scenario, try every choice of the first so many")
    parser.add_argument("--preemptions", type=int, default=1)
    options = parser.parse_args()
    began, total, counts = PERF(), 0, collections.Counter[str]()
    seed = options.seed
    names = [options.scenario] if options.scenario else list(SCENARIOS)
    try:
        if options.depth:
            strategy = BoundedStrategy(options.depth, options.preemptions)
            more = True
            while more:
                os.environ["FLAME_SCHEDULE"] = f"plan {strategy.plan}"
                total += one("small", 0, strategy)
                counts["small, every choice"] += 1
                more = strategy.next()
        else:
            while total < options.steps and seed - options.seed < options.runs:
                chance = random.Random(seed)
                (name,) = chance.choices(names, [_WEIGHTS[name] for name in names])
                os.environ["FLAME_SCHEDULE"] = f"--seed {seed} --runs 1" + (f" --scenario {options.scenario}" if options.scenario else "")
                total += one(name, seed, RandomStrategy(seed))
                counts[name] += 1
                seed += 1
    except Finding as finding:
        print(f"FINDING in {os.environ['FLAME_SCHEDULE']}:\n{finding}", flush=True)
        os._exit(1)
    told = ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))
    print(f"{total} steps of {sum(counts.values())} schedules in {PERF() - began:.1f} s, seeds from {options.seed}: {told}", flush=True)
    os._exit(0)  # the standard library is not what it was


if __name__ == "__main__":
    main()
