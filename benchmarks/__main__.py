"""``python -m benchmarks [W1 W2 W4 W6 W7] [--quick] [--peers DIR]``; prints a Markdown table."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks._limits import coalescing, ping_pong
from benchmarks._measure import HEAD, Row, interleave

PEERS = ("pool", "loky", "dask", "ray")
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
PINNED = ("humanize==4.9.0", "attrs==24.2.0", "click==8.1.7")


class Peer:
    """A peer in its own interpreter, asked over a pipe."""

    def __init__(self, python: Path, name: str) -> None:
        argv = [str(python), str(Path(__file__).with_name("_peers.py")), name]
        self._process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self._expect("ready")

    def _expect(self, word: str = "") -> str:
        assert self._process.stdout is not None
        while line := self._process.stdout.readline():
            if not word or line.strip() == word:
                return line
        raise RuntimeError("it ended before it was ready")

    def ask(self, workload: str, count: int) -> float:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([workload, count]) + "\n")
        self._process.stdin.flush()
        while True:
            with contextlib.suppress(ValueError):  # peers print warnings, too
                return float(self._expect())

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(30)
        except subprocess.TimeoutExpired:
            self._process.kill()


@contextlib.contextmanager
def peers(directory: Path | None, stack: contextlib.ExitStack) -> Iterator[dict[str, Peer]]:
    place = directory or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="flame-bench-")), "peers")
    python = place / "bin" / "python"
    if not python.exists():
        subprocess.run(["uv", "venv", "-q", str(place), "--python", sys.executable], check=True)
        wanted = ["ray", "dask[distributed]", "loky", "numpy"]
        subprocess.run(["uv", "pip", "install", "-q", "--python", str(python), *wanted], check=True)
    found = {}
    for name in PEERS:
        try:
            found[name] = Peer(python, name)
        except RuntimeError as error:
            print(f"{name} is left out: {error}", file=sys.stderr)
    try:
        yield found
    finally:
        for peer in found.values():
            peer.close()


def noop(a: int, b: int) -> int:
    return a + b


def calls(chosen: set[str], rounds: int, quick: bool, directory: Path | None) -> list[Row]:
    """W1 and W2: one call at a time, and many at once."""
    from flamepy import Runner

    rows = []
    with contextlib.ExitStack() as stack, peers(directory, stack) as others, Runner("bench", package=False, logs="none") as rr:
        service = rr.service(noop)
        service(1, 2).get()

        def latency(count: int) -> float:
            taken = []
            for _ in range(count):
                begun = time.perf_counter()
                service(1, 2).get()
                taken.append(time.perf_counter() - begun)
            return statistics.median(taken) * 1e6

        def throughput(tasks: int) -> float:
            begun = time.perf_counter()
            for future in [service(1, 2) for _ in range(tasks)]:
                future.get()
            return (time.perf_counter() - begun) / tasks * 1e6

        if "W1" in chosen:
            count = 300 if quick else 2000
            row = Row("W1 warm call", "µs", promises=[("limit", 2.0), ("pool", 0.35)])
            contenders = {"limit": lambda: ping_pong(count), "ours": lambda: latency(count)}
            contenders |= {name: (lambda peer=peer: peer.ask("latency", max(50, count // 4))) for name, peer in others.items()}
            rows.append(interleave(row, contenders, rounds))
        if "W2" in chosen:
            tasks = 3000 if quick else 30_000
            row = Row("W2 many calls", "µs a task", promises=[("limit", 2.0), ("pool", 0.2)])
            contenders = {"limit": lambda: coalescing(tasks), "ours": lambda: throughput(tasks)}
            contenders |= {
                name: (lambda peer=peer, name=name: peer.ask("throughput", tasks // (10 if name == "dask" else 3)))
                for name, peer in others.items()
            }
            rows.append(interleave(row, contenders, rounds))
        if "W2s" in chosen and not quick:
            row = Row("W2s 10^6 pending to 3·10^4", "µs a task", promises=[("30,000", 1.5)])
            rows.append(interleave(row, {"30,000": lambda: throughput(30_000), "ours": lambda: throughput(1_000_000)}, 1))
    return rows


def _project(directory: Path) -> Path:
    project = directory / "project"
    project.mkdir()
    wanted = ", ".join(f'"{one}"' for one in PINNED)
    (project / "pyproject.toml").write_text(f'[project]\nname = "bench"\nversion = "1"\ndependencies = [{wanted}]\n')
    (project / "work.py").write_text("import attrs, click, humanize\n\ndef work():\n    return humanize.intcomma(12345)\n")
    (project / "main.py").write_text(
        "from flamepy import Runner\n\n"
        "def work():\n    import work as module\n    return module.work()\n\n"
        "with Runner('cold', logs='none') as rr:\n    print(rr.service(work)().get())\n"
    )
    return project


def _timed(argv: list[str], directory: Path, environment: dict[str, str]) -> float:
    begun = time.perf_counter()
    subprocess.run(argv, cwd=directory, env=environment, check=True, capture_output=True)
    return time.perf_counter() - begun


def starts(rounds: int) -> list[Row]:
    """W4: a project with three pinned dependencies to its first result, cold, warm, and after an edit."""
    cold = Row("W4 cold start", "s", promises=[("limit", 1.3)])
    warm = Row("W4 second run", "s", promises=[("limit", 1.5)])
    edited = Row("W4 after an edit", "s", promises=[("second run", 1.2)])
    with tempfile.TemporaryDirectory(prefix="flame-bench-") as text:
        directory = Path(text)
        project = _project(directory)
        root, bare = directory / "root", directory / "bare"
        environment = {**ENVIRONMENT, "FLAME_HOST_ROOT": str(root)}
        ours = [sys.executable, "main.py"]
        bare_run = [str(bare / "bin" / "python"), "-c", "import work; print(work.work())"]

        def limit() -> float:
            if bare.exists():
                bare.rename(directory / f"trash-{time.monotonic_ns()}")
            begun = time.perf_counter()
            subprocess.run(["uv", "venv", "-q", str(bare), "--python", sys.executable], check=True)
            subprocess.run(["uv", "pip", "install", "-q", "--python", str(bare / "bin" / "python"), *PINNED], check=True)
            subprocess.run(bare_run, cwd=project, env=ENVIRONMENT, check=True, capture_output=True)
            return time.perf_counter() - begun

        def fresh() -> float:
            if root.exists():
                root.rename(directory / f"trash-{time.monotonic_ns()}")
            return _timed(ours, project, environment)

        limit(), fresh()  # fills uv's cache
        interleave(cold, {"limit": limit, "ours": fresh}, rounds)
        time.sleep(2.5)  # time stamps this young are not trusted
        _timed(ours, project, environment)
        interleave(
            warm, {"limit": lambda: _timed(bare_run, project, ENVIRONMENT), "ours": lambda: _timed(ours, project, environment)}, 2 * rounds
        )

        def after_edit() -> float:
            with (project / "work.py").open("a") as stream:
                stream.write(f"# {time.monotonic_ns()}\n")
            return _timed(ours, project, environment)

        interleave(edited, {"second run": lambda: _timed(ours, project, environment), "ours": after_edit}, rounds)
        shutil.rmtree(directory, ignore_errors=True)
        directory.mkdir()
    return [cold, warm, edited]


def imports(rounds: int) -> list[Row]:
    """W6: what importing the client costs over a bare start."""
    row = Row("W6 import flamepy", "ms")

    def start(code: str) -> float:
        return _timed([sys.executable, "-c", code], Path.cwd(), ENVIRONMENT) * 1e3

    contenders = {"bare Python": lambda: start("pass"), "ours": lambda: start("import flamepy")}
    contenders["ours, Runner too"] = lambda: start("from flamepy import Runner")
    return [interleave(row, contenders, 3 * rounds)]


def idle() -> list[Row]:
    """W7: memory of an idle Runner with two workers: what the client gained, the guardian, the workers. PSS, MiB."""
    from flamepy import Runner

    row = Row("W7 idle, 2 workers", "MiB")
    before = _pss(os.getpid())
    with Runner("idle", package=False, logs="none") as rr:
        service = rr.service(noop, warmup=2)
        service(1, 2).get()
        time.sleep(2)
        pids = _descendants(os.getpid())
        cpu = sum(_ticks(pid) for pid in [os.getpid(), *pids])
        time.sleep(3)
        used = (sum(_ticks(pid) for pid in [os.getpid(), *pids]) - cpu) / os.sysconf("SC_CLK_TCK") / 3
        row.figures["ours"] = [_pss(os.getpid()) - before + sum(_pss(pid) for pid in pids)]
        print(f"idle processor time: {100 * used:.1f} %", file=sys.stderr)
    return [row]


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def _ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def _descendants(pid: int) -> list[int]:
    found = []
    for thread in os.listdir(f"/proc/{pid}/task"):
        for child in Path(f"/proc/{pid}/task/{thread}/children").read_text().split():
            found += [int(child), *_descendants(int(child))]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("workloads", nargs="*", default=["W1", "W2", "W2s", "W4", "W6", "W7"])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peers", type=Path, help="directory of the peers' environment, made there if it is not")
    given = parser.parse_args()
    chosen, rounds = set(given.workloads), 2 if given.quick else given.rounds
    rows = []
    if chosen & {"W1", "W2", "W2s"}:
        rows += calls(chosen, rounds, given.quick, given.peers)
    if "W4" in chosen:
        rows += starts(rounds)
    if "W6" in chosen:
        rows += imports(rounds)
    if "W7" in chosen:
        rows += idle()
    print(HEAD)
    for row in rows:
        print("\n".join(row.lines()))


if __name__ == "__main__":
    main()
