"""Run this twice: the first run installs the dependencies, the second finds everything in place.

PYTHONPATH=src python main.py
"""

from __future__ import annotations

import sys
import time
import traceback

from flamepy import Runner
from quickstart.counter import Counter, broken
from quickstart.pi import describe, hits, make_array

TASKS, SAMPLES = 4_000, 20_000


def main() -> None:
    begun = time.perf_counter()
    with Runner("quickstart") as rr:
        count = rr.service(hits)
        count(10, 0).get()
        ready = time.perf_counter() - begun
        print(f"first result after {ready:.2f} s ({'cold: the environment was made' if ready > 1 else 'warm: everything was there'})")

        total = sum(count.starmap(((SAMPLES, seed) for seed in range(TASKS)), ordered=False, progress="pi"))
        print(f"pi is about {4 * total / (TASKS * SAMPLES):.4f}, by {TASKS} tasks")

        counter = rr.service(Counter)
        counter.add(1)
        counter.add(3)
        print("a class:   ", counter.get_counter().get())

        from_ten = rr.service(Counter(10))
        from_ten.add(1)
        from_ten.add(3)
        now = from_ten.get_counter()
        print("an object: ", now.get())
        from_ten.add(now)  # the future itself: its value never passes through this process
        print("and again: ", from_ten.get_counter().get())

        array = rr.service(make_array)(64)
        print("an array:  ", rr.service(describe)(array).get())

        try:
            rr.service(broken)([]).get()
        except ZeroDivisionError:
            print("\nA failing task looks like this:\n")
            traceback.print_exc(file=sys.stdout)
    print(f"\nall done after {time.perf_counter() - begun:.2f} s")


if __name__ == "__main__":
    main()
