"""W4: a project with three pinned dependencies to its first result: cold, again, and after an edit of its code."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

from benchmarks._contender import PROGRAMS, Options, peers_python
from benchmarks._measure import Promise, Row, Unavailable, interleave

PINNED = ("humanize==4.9.0", "attrs==24.2.0", "click==8.1.7")
WORK = "import attrs\nimport click\nimport humanize\n\n\ndef work():\n    return humanize.intcomma(12345)\n"
MAIN = """from flamepy import Runner


def work():  # imports there: the client need not have the dependencies
    import work_of_bench

    return work_of_bench.work()


with Runner("cold", logs="none") as rr:
    print(rr.service(work)().get())
"""


class Project:
    """The project's directory, and the three ways to run it."""

    def __init__(self, options: Options) -> None:
        self._options = options
        self.directory = options.scratch / "project"
        self._root, self._bare = options.scratch / "root", options.scratch / "bare"
        self.directory.mkdir()
        wanted = ", ".join(f'"{one}"' for one in PINNED)
        (self.directory / "pyproject.toml").write_text(f'[project]\nname = "bench"\nversion = "1"\ndependencies = [{wanted}]\n')
        (self.directory / "work_of_bench.py").write_text(WORK)
        (self.directory / "main.py").write_text(MAIN)

    def _run(self, *argv: str) -> None:
        done = subprocess.run(argv, cwd=self.directory, env=self._options.environment, capture_output=True, text=True)
        if done.returncode or "12,345" not in done.stdout:
            raise Unavailable(" ".join((done.stderr or done.stdout).strip().splitlines()[-1:]))

    def _away(self, path: Path) -> None:
        """Delete later: making files is slow for minutes after many were deleted."""
        if path.exists():
            path.rename(path.with_name(f"trash-{time.monotonic_ns()}"))

    def install(self) -> float:
        """Seconds of a bare installation and a run."""
        self._away(self._bare)
        begun = time.perf_counter()
        environment = self._options.environment
        subprocess.run(["uv", "venv", "-q", str(self._bare), "--python", sys.executable], check=True, env=environment)
        python = str(self._bare / "bin" / "python")
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, *PINNED], check=True, env=environment)
        self.run_bare()
        return time.perf_counter() - begun

    def run_bare(self) -> float:
        begun = time.perf_counter()
        self._run(str(self._bare / "bin" / "python"), "-c", "import work_of_bench; print(work_of_bench.work())")
        return time.perf_counter() - begun

    def cold(self) -> float:
        self._away(self._root)
        return self.run()

    def run(self) -> float:
        begun = time.perf_counter()
        self._run(sys.executable, "main.py")
        return time.perf_counter() - begun

    def settled(self) -> float:
        """A run whose files are older than the two seconds for which time stamps are not trusted."""
        time.sleep(2.2)
        return self.run()

    def edited(self) -> float:
        with (self.directory / "work_of_bench.py").open("a") as stream:
            stream.write(f"# {time.monotonic_ns()}\n")
        return self.run()

    def ray(self) -> float:
        python = peers_python(self._options.peers)
        if python is None:
            raise Unavailable("it is not installed")
        begun = time.perf_counter()
        self._run(str(python), str(PROGRAMS / "cold_on_ray.py"), *PINNED)
        return time.perf_counter() - begun


def rows(options: Options) -> list[Row]:
    cold = Row("W4 first result, cold", "s", [Promise("limit", 1.3)])
    again = Row("W4 second run", "s", [Promise("limit", 1.5)])
    edited = Row("W4 after an edit", "s", [Promise("second run", 1.2)])
    project = Project(options)
    project.install(), project.cold()  # fills uv's cache
    interleave(cold, {"limit": project.install, "ours": project.cold, "ray": project.ray}, options.rounds)
    project.settled()
    interleave(again, {"limit": project.run_bare, "ours": project.run}, 3 * options.rounds)
    interleave(edited, {"second run": project.settled, "ours": project.edited}, options.rounds)
    return [cold, again, edited]
