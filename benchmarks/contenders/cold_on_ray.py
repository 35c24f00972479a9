"""Ray's way to the first result of a project: ``cold_on_ray.py REQUIREMENT…`` in the project's directory."""

from __future__ import annotations

import shutil
import sys
import tempfile
from typing import Any

import ray


@ray.remote
def work() -> Any:
    import work_of_bench

    return work_of_bench.work()


def main() -> None:
    directory = tempfile.mkdtemp(prefix="ray-", dir="/tmp")  # a socket's path must be short
    try:
        runtime = {"uv": sys.argv[1:], "working_dir": "."}
        options = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR", "_temp_dir": directory}
        ray.init(num_cpus=2, runtime_env=runtime, **options)
        print(ray.get(work.remote(), timeout=120))
    finally:
        ray.shutdown()
        shutil.rmtree(directory, ignore_errors=True)


if __name__ == "__main__":
    main()
