"""Microseconds a call of our serializers beside pickle, cloudpickle and bare msgpack, interleaved in one run.

    python benchmarks/serializers.py [--json]

Each figure is the least of nine rounds; the candidates take turns within a round, so that a slow moment of the machine meets all of them.
"""

from __future__ import annotations

import json
import pickle
import sys
import timeit
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle
import msgpack
import numpy
from flame_serialize_cloudpickle import codec as ours_pickle
from flame_serialize_cloudpickle.cloudpickle_serializer import CloudpickleSerializer
from flame_serialize_msgpack import codec as ours_msgpack
from flame_serialize_msgpack.msgpack_serializer import MsgpackSerializer

_ROUNDS = 9
_SECONDS = 0.02
Codec = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def _closure() -> Any:
    offset = 10
    return lambda x: x + offset


VALUES: dict[str, Any] = {
    "call of two ints": ((1, 3), {}),
    "call with keywords": (("text", 2.5), {"name": "value", "flag": True}),
    "an int": 42,
    "1,000 floats": [float(number) for number in range(1000)],
    "nested dicts": {"rows": [{"id": number, "name": f"row {number}", "tags": ["a", "b"]} for number in range(50)]},
    "array of 1 MiB": ((numpy.arange(131_072, dtype="f8"),), {}),
    "a closure": _closure(),
}


def with_buffers(dumps: Any, loads: Any) -> Codec:
    """The way engines use them: buffers apart."""

    def write(value: Any) -> Any:
        buffers: list[Any] = []
        return dumps(value, buffers=buffers), buffers

    return write, lambda written: loads(written[0], buffers=[memoryview(buffer) for buffer in written[1]])


def candidates() -> dict[str, Codec]:
    ours, plain = CloudpickleSerializer(), MsgpackSerializer()
    return {
        "ours: cloudpickle codec": with_buffers(ours_pickle.dumps, ours_pickle.loads),
        "ours: cloudpickle provider": with_buffers(ours.dumps, ours.loads),
        "pickle 5": (lambda value: pickle.dumps(value, 5), pickle.loads),
        "cloudpickle": (lambda value: cloudpickle.dumps(value, 5), pickle.loads),
        "ours: msgpack codec": with_buffers(ours_msgpack.dumps, ours_msgpack.loads),
        "ours: msgpack provider": with_buffers(plain.dumps, plain.loads),
        "msgpack, types lost": (msgpack.packb, lambda data: msgpack.unpackb(data, strict_map_key=False)),
    }


def measure(value: Any) -> dict[str, tuple[float, float]]:
    """Microseconds to write and to read, by candidate; those that cannot carry the value are left out."""
    timers: dict[str, tuple[timeit.Timer, timeit.Timer]] = {}
    for name, (dumps, loads) in candidates().items():
        try:
            written = dumps(value)
            loads(written)
        except Exception:
            continue
        timers[name] = (timeit.Timer(partial(dumps, value)), timeit.Timer(partial(loads, written)))
    counts = {name: [max(1, int(_SECONDS / max(timer.timeit(20) / 20, 1e-8))) for timer in pair] for name, pair in timers.items()}
    best = {name: [float("inf"), float("inf")] for name in timers}
    for _ in range(_ROUNDS):
        for name, pair in timers.items():
            for side, timer in enumerate(pair):
                best[name][side] = min(best[name][side], timer.timeit(counts[name][side]) / counts[name][side] * 1e6)
    return {name: (write, read) for name, (write, read) in best.items()}


def main() -> None:
    results = {label: measure(value) for label, value in VALUES.items()}
    if "--json" in sys.argv:
        print(json.dumps(results, indent=2))
        return
    for label, figures in results.items():
        print(f"\n{label:32} {'write µs':>10} {'read µs':>10}")
        for name, (write, read) in figures.items():
            print(f"  {name:30} {write:10.2f} {read:10.2f}")


if __name__ == "__main__":
    main()
