"""``flame-host serve`` beside what it is compared with, in one run: ``python -m benchmarks.server``.

``frontend``: calls a second of one client with many under way, beside a bare grpcio server that answers the same messages and does
nothing else (the better of its two kinds). ``client``: the public client's warm call and its rate over many tasks, on each endpoint
given as ``NAME=FRONTEND,CACHE``: a real cluster can stand beside ours. Rounds are interleaved; the median is told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import grpc

from flame_host.testing.server import ServerProcess, free_port
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2
from flame_host.wire.flame.v1.frontend_pb2_grpc import FrontendServicer, FrontendStub

BARE = """
import asyncio, sys
from concurrent.futures import ThreadPoolExecutor
import grpc
from benchmarks.server import Bare, BareAsync
from flame_host.wire.flame.v1.frontend_pb2_grpc import add_FrontendServicer_to_server
kind, port = sys.argv[1:]
if kind == "threads":
    server = grpc.server(ThreadPoolExecutor(16))
    add_FrontendServicer_to_server(Bare(), server)
    server.add_insecure_port("127.0.0.1:" + port)
    server.start()
    server.wait_for_termination()
async def main():
    server = grpc.aio.server()
    add_FrontendServicer_to_server(BareAsync(), server)
    server.add_insecure_port("127.0.0.1:" + port)
    await server.start()
    await server.wait_for_termination()
asyncio.run(main())
"""


def _answer(request: frontend_pb2.CreateTaskRequest) -> types_pb2.Task:
    spec = types_pb2.TaskSpec(session_id=request.task.session_id, input=request.task.input)
    status = types_pb2.TaskStatus(state=types_pb2.Pending, creation_time=time.time_ns() // 1_000_000)
    status.events.add(code=0, message="Task was created with state <Pending>", creation_time=status.creation_time)
    return types_pb2.Task(metadata=types_pb2.Metadata(id="1", name="1"), spec=spec, status=status)


class Bare(FrontendServicer):
    def CreateTask(self, request: Any, context: Any) -> Any:
        return _answer(request)


class BareAsync(FrontendServicer):
    async def CreateTask(self, request: Any, context: Any) -> Any:  # type: ignore[override]
        return _answer(request)


async def frontend_rate(address: str, session: str, calls: int, at_once: int) -> float:
    """Durable creations of tasks a second, whose session has no executor: the path of a message, and nothing behind it."""
    async with grpc.aio.insecure_channel(address, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub: Any = FrontendStub(channel)  # type: ignore[arg-type]  # the generated types know of the blocking kind only
        request = frontend_pb2.CreateTaskRequest(task=types_pb2.TaskSpec(session_id=session, input=b"x" * 200))
        left = iter(range(calls))

        async def one() -> None:
            for _ in left:
                await stub.CreateTask(request)

        begun = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(at_once)))
        return calls / (time.perf_counter() - begun)


def cpu_of(pid: int) -> float:
    """Seconds of processor time it has had: on a machine that others use as well, the fairer measure."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def compare_frontend(rounds: int, calls: int) -> dict[str, dict[str, float]]:
    directory = Path(tempfile.mkdtemp(prefix="flame-bench-"))
    rates: dict[str, list[float]] = {"ours": [], "bare grpcio, threads": [], "bare grpcio, asyncio": []}
    costs: dict[str, list[float]] = {name: [] for name in rates}
    ports = {"bare grpcio, threads": free_port(), "bare grpcio, asyncio": free_port()}
    bare = [
        subprocess.Popen([sys.executable, "-c", BARE, name.rpartition(" ")[2], str(port)], cwd=Path(__file__).parents[1])
        for name, port in ports.items()
    ]
    try:
        with ServerProcess(directory, "--client", "", "--max-tasks", "10000000") as server:
            with grpc.insecure_channel(server.frontend) as channel:
                stub = FrontendStub(channel)
                spec = types_pb2.ApplicationSpec(shim=types_pb2.Wasm)  # nothing runs it
                stub.RegisterApplication(frontend_pb2.RegisterApplicationRequest(name="waits", application=spec))
                session = types_pb2.SessionSpec(application="waits")
                stub.CreateSession(frontend_pb2.CreateSessionRequest(session_id="waits", session=session))
            for port in ports.values():
                with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
                    grpc.channel_ready_future(channel).result(60)
            places = {"ours": (server.frontend, server.pid)}
            places |= {name: (f"127.0.0.1:{port}", process.pid) for (name, port), process in zip(ports.items(), bare, strict=True)}
            for _ in range(rounds):
                for name, (address, pid) in places.items():
                    before = cpu_of(pid)
                    rates[name].append(asyncio.run(frontend_rate(address, "waits", calls, 64)))
                    costs[name].append((cpu_of(pid) - before) / calls * 1e6)
    finally:
        for process in bare:
            process.kill()
            process.wait()
        shutil.rmtree(directory, ignore_errors=True)
    return {
        name: {"calls/s": round(statistics.median(rates[name])), "server's CPU µs a call": round(statistics.median(costs[name]))}
        for name in rates
    }


CLIENT = """
import json, os, sys, time
import flamepy
from flamepy.runner import Runner
os.chdir(sys.argv[1])
def double(n):
    return n * 2
with Runner(f"bench-{os.getpid()}") as rr:
    service = rr.service(double)
    service(1).get()
    print("ready", flush=True)
    for line in sys.stdin:
        kind, count = line.split()
        count = int(count)
        begun = time.perf_counter()
        if kind == "warm":
            took = []
            for n in range(count):
                since = time.perf_counter()
                service(n).get()
                took.append(time.perf_counter() - since)
        else:
            futures = [service(n) for n in range(count)]
            rr.wait(futures)
            took = [time.perf_counter() - begun]
            assert futures[-1].get() == (count - 1) * 2
        print(json.dumps(took), flush=True)
"""


class StockClient:
    """A process with the public client, which does its part when told to: turns are short, so that all have the same machine."""

    def __init__(self, python: str, frontend: str, cache: str, project: str) -> None:
        environment = {**os.environ, "FLAME_ENDPOINT": frontend, "FLAME_CACHE_ENDPOINT": cache}
        words = [python, "-c", CLIENT, project]
        self._process = subprocess.Popen(words, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self._read()

    def _read(self) -> str:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the client has ended")
        return line

    def turn(self, kind: str, count: int) -> list[float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{kind} {count}\n")
        self._process.stdin.flush()
        took: list[float] = json.loads(self._read())
        return took

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(120)


def compare_client(python: str, endpoints: dict[str, tuple[str, str]], rounds: int, tasks: int) -> dict[str, dict[str, float]]:
    with tempfile.TemporaryDirectory() as project:
        clients = {name: StockClient(python, frontend, cache, project) for name, (frontend, cache) in endpoints.items()}
        calls: dict[str, list[float]] = {name: [] for name in clients}
        bursts: dict[str, list[float]] = {name: [] for name in clients}
        for _ in range(rounds):
            for name, client in clients.items():
                calls[name] += client.turn("warm", 10)
        for _ in range(rounds):
            for name, client in clients.items():
                bursts[name] += client.turn("burst", max(1, tasks // rounds))
        for client in clients.values():
            client.close()
    return {
        name: {
            "warm call ms": round(statistics.median(calls[name]) * 1000, 2),
            "tasks/s": round(rounds * max(1, tasks // rounds) / sum(bursts[name]), 1),
        }
        for name in clients
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("frontend", "client"))
    parser.add_argument("endpoints", nargs="*", metavar="NAME=FRONTEND,CACHE")
    parser.add_argument("--python", default=sys.executable, help="interpreter with the public flamepy")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--tasks", type=int, default=30_000)
    parser.add_argument("--calls", type=int, default=10_000)
    arguments = parser.parse_args()
    if arguments.what == "frontend":
        print(json.dumps(compare_frontend(arguments.rounds, arguments.calls), indent=2))
        return
    endpoints = {}
    for text in arguments.endpoints:
        name, _, where = text.partition("=")
        frontend, _, cache = where.partition(",")
        endpoints[name] = (frontend, cache)
    print(json.dumps(compare_client(arguments.python, endpoints, arguments.rounds, arguments.tasks), indent=2))


if __name__ == "__main__":
    main()
