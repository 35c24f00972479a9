"""A server killed again and again while clients work: ``python tests/faults/server_kills.py --tasks 10000 --clients 4 --kills 10``.

Each client keeps its futures through it as any client can: a request that was not answered is made again, a watch that broke is taken
up again. What has to hold: every future gets exactly one value, the right one; what was answered once is answered so ever after; and
nothing of the dead servers is left.
"""

from __future__ import annotations

import argparse
import pickle
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import pyarrow.flight

from flame_host.testing.executor_manager import descendants
from flame_host.testing.server import ServerProcess
from flame_host.wire import bson
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2
from flame_host.wire.flame.v1.frontend_pb2_grpc import FrontendStub

PATIENCE = 120.0


def square(number: int) -> int:
    return number * number


def by_value(value: Any) -> bytes:
    """Pickled with the code of this module, which no worker can import."""
    module = sys.modules[__name__]
    cloudpickle.register_pickle_by_value(module)
    try:
        return bytes(cloudpickle.dumps(value))
    finally:
        cloudpickle.unregister_pickle_by_value(module)


@dataclass
class Client:
    """One client: a session, a number of futures, and what became of them."""

    name: str
    address: str
    values: dict[int, bytes] = field(default_factory=dict)
    answered: dict[int, str] = field(default_factory=dict)
    again: int = 0

    def __post_init__(self) -> None:
        # Its own connections: channels of one process are shared otherwise.
        self._channel = grpc.insecure_channel(self.address, options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub = FrontendStub(self._channel)

    def open(self) -> None:
        context = by_value({"execution_object": square})
        spec = types_pb2.SessionSpec(application="flmrun", common_data=context)
        self.insist(lambda: self._stub.OpenSession(frontend_pb2.OpenSessionRequest(session_id=self.name, session=spec), timeout=20))

    def run(self, first: int, count: int, at_once: int) -> None:
        with ThreadPoolExecutor(at_once) as pool:
            list(pool.map(self._one, range(first, first + count)))

    def _one(self, number: int) -> None:
        request = pickle.dumps(_Request(None, (number,), None))
        spec = types_pb2.TaskSpec(session_id=self.name, input=request)
        task = self.insist(lambda: self._stub.CreateTask(frontend_pb2.CreateTaskRequest(task=spec), timeout=30))
        self.answered[number] = task.metadata.id
        ended = self.insist(lambda: self._end_of(task.metadata.id))
        if number in self.values:
            raise AssertionError(f"future {number} got a second value")
        if ended.status.state != types_pb2.Succeed:
            raise AssertionError(f"task {number}: {ended.status}")
        self.values[number] = ended.spec.output

    def _end_of(self, task_id: str) -> types_pb2.Task:
        watch = self._stub.WatchTask(frontend_pb2.WatchTaskRequest(task_id=task_id, session_id=self.name), timeout=60)
        updates = list(watch)
        assert updates, "a watch ended well and said nothing"
        return updates[-1]

    def insist(self, ask: Callable[[], Any]) -> Any:
        until = time.monotonic() + PATIENCE
        while True:
            try:
                return ask()
            except grpc.RpcError as error:
                if _status(error) not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED) or time.monotonic() > until:
                    raise
                self.again += 1
                time.sleep(0.05)

    def check(self, first: int, count: int, cache: str) -> None:
        """The values are the right ones, and the server still says what it said."""
        flight = pyarrow.flight.connect(f"grpc://{cache}")
        for number in range(first, first + count):
            reference = bson.decode_reference(self.values[number])
            table = flight.do_get(pyarrow.flight.Ticket(f"{reference.key}:0".encode())).read_all()
            content = table["data"][0].as_py()
            assert content[:4] == b"FLM\x00"
            assert pickle.loads(content[4:]) == number * number, number
        kept = {task.metadata.id: task for task in self._stub.ListTask(frontend_pb2.ListTaskRequest(session_id=self.name))}
        for number, task_id in self.answered.items():
            assert kept[task_id].spec.output == self.values[number], number
        flight.close()

    def close(self) -> None:
        self._stub.CloseSession(frontend_pb2.CloseSessionRequest(session_id=self.name))
        self._channel.close()


def _status(error: grpc.RpcError) -> grpc.StatusCode:
    return error.code() if isinstance(error, grpc.Call) else grpc.StatusCode.UNKNOWN


class _Request:
    """Looks like a stock client's request once it is read: its class is taken for the client's."""

    def __init__(self, method: str | None, args: tuple[Any, ...] | None, kwargs: dict[str, Any] | None) -> None:
        self.method, self.args, self.kwargs = method, args, kwargs

    def __reduce__(self) -> Any:
        import types

        return types.SimpleNamespace, (), vars(self)


def run(directory: Path, *, tasks: int, clients: int, kills: int, at_once: int, seed: int, root: Path | None = None) -> dict[str, Any]:
    """Do it; raises AssertionError for whatever does not hold."""
    chance = random.Random(seed)
    server = ServerProcess(directory, "--client", "", root=root)
    server.start()
    each = tasks // clients
    crowd = [Client(f"client-{number}", server.frontend) for number in range(clients)]
    for client in crowd:
        client.open()
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            crowd[number].run(number * each, each, at_once)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(clients)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    killed = 0
    seen: set[int] = set()
    left: set[int] = set()
    while any(thread.is_alive() for thread in threads):
        done = sum(len(client.values) for client in crowd)
        if killed < kills and done >= tasks * (killed + chance.random()) / (kills + 1):
            time.sleep(chance.random() * 0.3)
            seen = set(descendants(server.pid))
            server.kill()
            killed += 1
            until = time.monotonic() + 10
            while (left := {pid for pid in seen if _lives(pid)}) and time.monotonic() < until:
                time.sleep(0.02)
            assert not left, f"processes of a dead server: {left}"
            server.start()
        time.sleep(0.005)
    took = time.monotonic() - begun
    try:
        if failures:
            raise failures[0]
        assert killed == kills, f"only {killed} kills in {took:.1f} s"
        for number, client in enumerate(crowd):
            assert len(client.values) == each
            client.check(number * each, each, server.cache)
            client.close()
    finally:
        seen = set(descendants(server.pid))
        server.end()
    until = time.monotonic() + 10
    while any(_lives(pid) for pid in seen) and time.monotonic() < until:
        time.sleep(0.02)
    assert not [pid for pid in seen if _lives(pid)]
    return {"tasks": tasks, "kills": killed, "seconds": round(took, 1), "asked again": sum(client.again for client in crowd)}


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=10_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=16, help="calls of each client that are under way")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="flame-kills-"))
    try:
        print(run(directory, **vars(arguments)))
    except BaseException:
        print(f"the server's log and state are in {directory}")
        raise
    shutil.rmtree(directory)


if __name__ == "__main__":
    main()
