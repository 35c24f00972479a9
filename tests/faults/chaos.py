"""A mixed load at random, in which no call may get stuck: ``python tests/faults/chaos.py --minutes 10 --seed 1 2 3 --threads 1 3 8``.

Every thread does one thing after another, chosen by the seed (``chaos_kinds.py``, ``chaos_ends.py``), and checks every value. When
nothing gets done anywhere for 20 seconds, the program tells the state of every service, worker and thread, and ends with 1; so it does
for a wrong value, for a warning of the libraries, and for anything left behind. Two loads are of one kind: ``--load sums`` is
``sum(svc.map(range(300_000)))`` beside a busy process pool, ``--load streams`` generators of up to 200 items on two executors.
"""

from __future__ import annotations

import argparse
import collections
import concurrent.futures
import contextlib
import os
import random
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Iterator

import chaos_ends  # noqa: F401 (registers its kinds)
import chaos_kinds  # noqa: F401
import flamepy
from chaos_watch import Complaints, Watch, belongings, foreign_load, left_behind
from chaos_world import KINDS, World, expect
from flamepy import Runner

# ---------------------------------------------------------------------------------------------------- what a thread does


def mixed(options: argparse.Namespace, world: World, chance: random.Random) -> Iterator[str]:
    """As all loads: says what it is going to do, and does it when asked for the next."""
    names = [name for name in options.kinds or KINDS if world.has_workers or not KINDS[name][1]]
    weights = [KINDS[name][0] for name in names]
    deadline = time.monotonic() + options.seconds
    while time.monotonic() < deadline and not world.failed:
        (name,) = chance.choices(names, weights)
        yield name
        KINDS[name][2](world, chance)


def sums(options: argparse.Namespace, world: World, chance: random.Random) -> Iterator[str]:
    service = world.runner.service(_same)
    for _ in range(options.rounds):
        yield "sum"
        expect(sum(world.counted(service.map(range(300_000)))), 300_000 * 299_999 // 2)


def streams(options: argparse.Namespace, world: World, chance: random.Random) -> Iterator[str]:
    for _ in range(-(-options.rounds // world.threads)):
        yield "stream"
        count = chance.randint(1, 200)
        expect(list(world.counted(world.services[3]("items", count))), list(range(count)))


LOADS = {"mixed": mixed, "sums": sums, "streams": streams}


def _same(number: int) -> int:
    return number


def _spin() -> int:
    return sum(range(200_000))


@contextlib.contextmanager
def busy_pool() -> Iterator[None]:
    """A process pool of this very program that always has something to do. Made before the Runner: it forks."""
    over = threading.Event()
    with concurrent.futures.ProcessPoolExecutor() as pool:

        def again(_: object) -> None:
            with contextlib.suppress(RuntimeError):  # it has been shut down
                if not over.is_set():
                    pool.submit(_spin).add_done_callback(again)

        for _ in range(2 * len(os.sched_getaffinity(0))):
            again(None)
        try:
            yield
        finally:
            over.set()


# ---------------------------------------------------------------------------------------------------- one configuration after another


def run(options: argparse.Namespace, seed: int, threads: int, heard: list[str]) -> collections.Counter[str] | None:
    """Let so many threads loose; returns how often they began what, or None when one of them has failed."""
    counts: collections.Counter[str] = collections.Counter()
    story = f"seed {seed}, {threads} threads, engine {options.engine}, load {options.load}, pid {os.getpid()}"

    def live(world: World, index: int) -> None:
        with world.watched("starting"):
            try:
                for name in LOADS[options.load](options, world, random.Random(f"{seed}/{threads}/{index}")):
                    world.begin(name)
                    counts[name] += 1
            except BaseException:
                world.failed = True
                print(f"FAILED: {world.doing[threading.get_ident()]}, thread {index}; {story}\n{traceback.format_exc()}", flush=True)

    with contextlib.ExitStack() as stack:
        if options.load == "sums":
            stack.enter_context(busy_pool())
        stack.enter_context(foreign_load(options.foreign_load))
        runner = stack.enter_context(Runner(f"chaos-{seed}-{threads}", engine=options.engine, package=False, logs="none"))
        world = World(runner, threads)
        stack.enter_context(Watch(world, options.patience, story, heard))
        try:
            with concurrent.futures.ThreadPoolExecutor(threads, "chaos") as pool:
                for index in range(threads):
                    pool.submit(live, world, index)
        except KeyboardInterrupt:
            world.failed = True  # the others end with the Runner
            raise
        with world.watched("closing the Runner"):
            runner.close(wait=not world.failed)
            flamepy.disconnect()
    return None if world.failed else counts


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=1.0, help="of the mixed load, for all configurations together")
    parser.add_argument("--seed", type=int, nargs="+", default=[1])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 3, 8])
    parser.add_argument("--engine", default="local")
    parser.add_argument("--foreign-load", action="store_true", help="a busy process of somebody else on every core")
    parser.add_argument("--load", choices=LOADS, default="mixed")
    parser.add_argument("--rounds", type=int, default=10, help="of the loads of one kind, in every configuration")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, metavar="KIND", help="only these: " + ", ".join(KINDS))
    parser.add_argument("--patience", type=float, default=20.0, help="seconds in which something must get done")
    options = parser.parse_args(arguments)
    configurations = [(seed, threads) for seed in options.seed for threads in options.threads]
    options.seconds = options.minutes * 60 / len(configurations)
    complaints = Complaints()
    before = belongings()
    for seed, threads in configurations:
        began = time.monotonic()
        counts = run(options, seed, threads, complaints.heard)
        told = ", ".join(f"{count} {name}" for name, count in sorted((counts or {}).items())) or "failed"
        print(f"seed {seed}, {threads} threads, {time.monotonic() - began:.0f} s: {told}", flush=True)
        problems = complaints.heard + (left_behind(before) if counts is not None else [])
        if problems:
            print("\n".join(["NOT AS IT SHOULD BE:", *problems]))
        if problems or counts is None:
            return 1
    return 0


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="flame-chaos-") as home:
        os.environ.setdefault("FLAME_HOST_ROOT", home)
        os.chdir(home)
        try:
            code = main(sys.argv[1:])
        finally:
            os.chdir("/")
    sys.exit(code)
