"""A server under a mixed load for a while, and what it has grown by: ``python tests/faults/server_soak.py --minutes 30``.

Sessions come and go, tasks end well and badly, workers die, watchers leave, objects are put, patched and deleted. Each minute its
memory, threads, descriptors, processes and bytes on disk are told; growth after the first third is a failure.
"""

from __future__ import annotations

import argparse
import os
import pickle
import shutil
import sys
import tempfile
import time
import types
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import pyarrow
import pyarrow.flight

from flame_host.testing.executor_manager import descendants
from flame_host.testing.server import ServerProcess
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2
from flame_host.wire.flame.v1.frontend_pb2_grpc import FrontendStub


def job(kind: str, size: int = 0) -> Any:
    import os

    if kind == "raise":
        raise ValueError("as told")
    if kind == "die":
        os._exit(3)
    return b"x" * size


class Load:
    def __init__(self, server: ServerProcess) -> None:
        self._channel = grpc.insecure_channel(server.frontend, options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub = FrontendStub(self._channel)
        self._flight = pyarrow.flight.connect(f"grpc://{server.cache}")
        module = sys.modules[__name__]
        cloudpickle.register_pickle_by_value(module)
        self._context = cloudpickle.dumps({"execution_object": job})
        self.rounds = self.tasks = 0

    def round(self) -> None:
        """A session from its opening to its end."""
        self.rounds += 1
        name = f"soak-{self.rounds}"
        spec = types_pb2.SessionSpec(application="flmrun", common_data=self._context, max_instances=2)
        self._stub.OpenSession(frontend_pb2.OpenSessionRequest(session_id=name, session=spec))
        kinds = [("fine", 100)] * 16 + [("fine", 300_000), ("raise", 0)] + ([("die", 0)] if self.rounds % 10 == 0 else [])
        created = []
        for kind in kinds:
            data = pickle.dumps(types.SimpleNamespace(method=None, args=kind, kwargs=None))
            task = types_pb2.TaskSpec(session_id=name, input=data)
            created.append(self._stub.CreateTask(frontend_pb2.CreateTaskRequest(task=task)).metadata.id)
        left = self._stub.WatchTask(frontend_pb2.WatchTaskRequest(session_id=name, task_id=created[-1]))
        left.cancel()
        for task_id, (kind, _) in zip(created, kinds, strict=True):
            *_, last = self._stub.WatchTask(frontend_pb2.WatchTaskRequest(session_id=name, task_id=task_id), timeout=120)
            wanted = types_pb2.Succeed if kind == "fine" else types_pb2.Failed
            assert last.status.state == wanted, last.status
            self.tasks += 1
        self._objects(name)
        self._stub.CloseSession(frontend_pb2.CloseSessionRequest(session_id=name))
        self._stub.DeleteSession(frontend_pb2.DeleteSessionRequest(session_id=name))
        list(self._flight.do_action(pyarrow.flight.Action("DELETE", f"flmrun/{name}".encode())))

    def _objects(self, name: str) -> None:
        batch = pyarrow.RecordBatch.from_pydict({"version": pyarrow.array([0], pyarrow.uint64()), "data": pyarrow.array([b"x" * 1000])})
        key = f"flmrun/{name}/object"
        kinds = pyarrow.flight.FlightDescriptor
        for descriptor in (kinds.for_path(key), kinds.for_command(f"PATCH:{key}")):
            writer, reader = self._flight.do_put(descriptor, batch.schema)
            writer.write_batch(batch)
            writer.done_writing()
            assert reader.read() is not None
            writer.close()


def facts(server: ServerProcess) -> dict[str, int]:
    status = Path(f"/proc/{server.pid}/status").read_text()
    memory, threads = (int(line.split()[1]) for line in status.splitlines() if line.startswith(("VmRSS", "Threads")))
    disk = sum(path.stat().st_size for path in (server.directory / "state").rglob("*") if path.is_file())
    return {
        "memory MB": memory // 1024,
        "threads": threads,
        "descriptors": len(os.listdir(f"/proc/{server.pid}/fd")),
        "processes": len(list(descendants(server.pid))),
        "disk MB": disk >> 20,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    arguments = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="flame-soak-"))
    told: list[dict[str, int]] = []
    with ServerProcess(directory, "--client", "", "--log-level", "error") as server:
        load = Load(server)
        begun = last = time.monotonic()
        while time.monotonic() < begun + arguments.minutes * 60:
            load.round()
            if time.monotonic() - last > 60:
                last = time.monotonic()
                told.append(facts(server))
                print(f"{(last - begun) / 60:.0f} min, {load.rounds} sessions, {load.tasks} tasks: {told[-1]}", flush=True)
    third = max(1, len(told) // 3)
    early, late = told[third - 1], told[-1]
    grown = {name: (early[name], late[name]) for name in late if late[name] > early[name] * 1.15 + 10}
    print("grown:", grown or "nothing", flush=True)
    shutil.rmtree(directory)
    raise SystemExit(bool(grown))


if __name__ == "__main__":
    main()
