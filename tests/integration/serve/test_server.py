"""Who may use a server, what it refuses, how it ends, and what another one finds."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cloudpickle
import grpc
import pyarrow.flight
import pytest

from flame_host.testing.executor_manager import descendants
from flame_host.testing.server import ServerProcess
from flame_host.wire.flame.v1 import frontend_pb2, types_pb2
from flame_host.wire.flame.v1.frontend_pb2_grpc import FrontendStub

pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("root")


@pytest.fixture
def start(tmp_path: Path, root: Path) -> Iterator[Callable[..., ServerProcess]]:
    """Starts servers; whatever a test leaves of them is ended, and nothing may be left then."""
    servers = []

    def start(*options: str, directory: Path = tmp_path) -> ServerProcess:
        server = ServerProcess(directory, "--client", "", *options, root=root)
        servers.append(server)
        server.start()
        return server

    yield start
    for server in servers:
        if server.process is not None and server.process.poll() is None:
            server.end()
    assert not [pid for pid in descendants(os.getpid()) if "guardian" in Path(f"/proc/{pid}/cmdline").read_text()]


class Client:
    """Just enough of one, without the public library."""

    def __init__(self, server: ServerProcess, function: Callable[..., Any], name: str = "ssn", **spec: Any) -> None:
        self.name = name
        self.channel = grpc.insecure_channel(server.frontend, options=[("grpc.use_local_subchannel_pool", 1)])
        self.stub = FrontendStub(self.channel)
        module = sys.modules[function.__module__]  # no worker can import it
        cloudpickle.register_pickle_by_value(module)
        data = cloudpickle.dumps({"execution_object": function})
        cloudpickle.unregister_pickle_by_value(module)
        order = types_pb2.SessionSpec(application="flmrun", common_data=data, **spec)
        self.stub.OpenSession(frontend_pb2.OpenSessionRequest(session_id=name, session=order))

    def create(self, *args: Any) -> str:
        request = pickle.dumps(types.SimpleNamespace(method=None, args=args, kwargs=None))
        spec = types_pb2.TaskSpec(session_id=self.name, input=request)
        return str(self.stub.CreateTask(frontend_pb2.CreateTaskRequest(task=spec)).metadata.id)

    def watch(self, task: str) -> Any:
        return self.stub.WatchTask(frontend_pb2.WatchTaskRequest(session_id=self.name, task_id=task), timeout=60)

    def end_of(self, task: str) -> types_pb2.Task:
        *_, last = self.watch(task)
        return last

    def state(self, task: str) -> int:
        return int(self.stub.GetTask(frontend_pb2.GetTaskRequest(session_id=self.name, task_id=task)).status.state)

    def wait_for(self, task: str, state: int) -> None:
        until = time.monotonic() + 60
        while self.state(task) != state:
            assert time.monotonic() < until, self.state(task)
            time.sleep(0.02)


def held(path: str, gate: str = "") -> str:
    """Leaves a mark, and waits for a file to appear."""
    import pathlib
    import time

    with pathlib.Path(path).open("a") as stream:
        stream.write("x")
    while gate and not pathlib.Path(gate).exists():
        time.sleep(0.01)
    return path


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "flame_host.cli", *words], capture_output=True, text=True, timeout=60)


# ---------------------------------------------------------------------------------------------------- who may use it


@pytest.mark.parametrize("option", ["--listen", "--cache", "--health"])
def test_a_server_for_other_machines_is_refused_without_tls_and_token(option):
    done = command("serve", option, "0.0.0.0:0")
    assert done.returncode == 1
    assert "other machines" in done.stderr
    assert "→" in done.stderr


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    openssl = shutil.which("openssl") or pytest.skip("needs openssl")
    directory = tmp_path_factory.mktemp("tls")
    words = [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost"]
    words += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-keyout", "key.pem", "-out", "cert.pem"]
    subprocess.run(words, cwd=directory, check=True, capture_output=True)
    return directory / "cert.pem", directory / "key.pem"


def test_with_tls_and_token_only_who_has_the_token_gets_in(start, certificate, tmp_path):
    token = tmp_path / "token"
    token.write_text("0123456789abcdef0123\n")
    cert, key = certificate
    server = start("--tls-cert", str(cert), "--tls-key", str(key), "--token-file", str(token))
    credentials = grpc.ssl_channel_credentials(cert.read_bytes())
    with grpc.secure_channel(server.frontend, credentials) as channel:
        stub = FrontendStub(channel)
        for given in (None, [("authorization", "Bearer wrong")]):
            with pytest.raises(grpc.RpcError) as refused:
                stub.ListApplication(frontend_pb2.ListApplicationRequest(), metadata=given)
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
            with pytest.raises(grpc.RpcError) as refused:
                next(stub.WatchTask(frontend_pb2.WatchTaskRequest(session_id="s", task_id="1"), metadata=given))
            assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        known = [("authorization", "Bearer 0123456789abcdef0123")]
        assert len(stub.ListApplication(frontend_pb2.ListApplicationRequest(), metadata=known).applications) == 3
    with grpc.insecure_channel(server.frontend) as channel, pytest.raises(grpc.RpcError):
        FrontendStub(channel).ListApplication(frontend_pb2.ListApplicationRequest(), timeout=5)
    flight = pyarrow.flight.FlightClient(f"grpc+tls://{server.cache}", tls_root_certs=cert.read_bytes())
    action = pyarrow.flight.Action("DELETE", b"app/ssn")
    with pytest.raises(pyarrow.flight.FlightUnauthenticatedError):
        list(flight.do_action(action))
    options = pyarrow.flight.FlightCallOptions(headers=[(b"authorization", b"Bearer 0123456789abcdef0123")])
    assert [result.body.to_pybytes() for result in flight.do_action(action, options)] == [b"OK:0"]


def test_a_short_token_is_none(tmp_path):
    (tmp_path / "token").write_text("hunter2")
    assert "16 at least" in command("serve", "--token-file", str(tmp_path / "token")).stderr


def test_a_unix_socket_is_its_users_alone(start, root):
    directory = Path(tempfile.mkdtemp(prefix="fs-"))
    try:
        server = ServerProcess(directory, "--client", "", root=root)
        words = ["--listen", f"unix:{directory}/s", "--cache", server.cache, "--health", server.health]
        environment = {**os.environ, "FLAME_HOST_ROOT": str(root)}
        process = subprocess.Popen([sys.executable, "-m", "flame_host.cli", "serve", *words], env=environment)
        try:
            until = time.monotonic() + 120
            while not (directory / "s").exists() and time.monotonic() < until:
                time.sleep(0.05)
            with grpc.insecure_channel(f"unix:{directory}/s") as channel:
                assert (
                    FrontendStub(channel).ListNodes(frontend_pb2.ListNodesRequest(), wait_for_ready=True, timeout=60).nodes[0].status.state
                    == types_pb2.Ready
                )
            assert (directory / "s").stat().st_mode & 0o077 == 0
        finally:
            process.terminate()
            assert process.wait(60) == 0
        assert not (directory / "s").exists()
    finally:
        shutil.rmtree(directory)


# ---------------------------------------------------------------------------------------------------- what it refuses


def test_limits_are_said_and_watchers_that_vanish_cost_nothing(start, tmp_path):
    server = start("--max-tasks", "50", "--max-sessions", "2")
    client = Client(server, held, max_instances=1)
    first = client.create(str(tmp_path / "ran"), str(tmp_path / "gate"))
    waiting = [client.create(str(tmp_path / "ran")) for _ in range(49)]
    with pytest.raises(grpc.RpcError, match="50 tasks wait or run"):
        client.create("x")
    Client(server, held, "second")
    with pytest.raises(grpc.RpcError, match="2 open sessions") as refused:
        Client(server, held, "third")
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with pytest.raises(grpc.RpcError) as refused:
        client.stub.CreateTask(frontend_pb2.CreateTaskRequest(task=types_pb2.TaskSpec(session_id="ssn", input=b"x" * (5 << 20))))
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    with grpc.insecure_channel(server.frontend, options=[("grpc.use_local_subchannel_pool", 1)]) as channel:
        stub = FrontendStub(channel)
        gone = [stub.WatchTask(frontend_pb2.WatchTaskRequest(session_id="ssn", task_id=task)) for task in waiting for _ in range(6)]
        assert client.state(first) in (types_pb2.Pending, types_pb2.Running)  # it answers while three hundred watch
    assert gone
    (tmp_path / "gate").touch()
    assert client.end_of(first).status.state == types_pb2.Succeed
    assert [client.end_of(task).status.state for task in waiting] == [types_pb2.Succeed] * 49


def test_tasks_that_wait_for_a_task_of_their_session_get_one_executor_more(start, tmp_path):
    client = Client(start(), held)
    gate = str(tmp_path / "gate")
    waiting = [client.create(str(tmp_path / f"{number}"), gate) for number in range(len(os.sched_getaffinity(0)))]
    opener = client.create(gate)
    assert [client.end_of(task).status.state for task in [*waiting, opener]] == [types_pb2.Succeed] * (len(waiting) + 1)


def test_a_second_server_on_the_same_state_or_port_is_refused(start, tmp_path):
    server = start()
    words = ["--listen", "127.0.0.1:0", "--cache", "127.0.0.1:0", "--health", ""]
    done = command("serve", "--state", str(tmp_path / "state"), *words)
    assert done.returncode == 1
    assert "another server uses" in done.stderr
    done = command("serve", "--listen", server.frontend, "--cache", "127.0.0.1:0", "--health", "")
    assert done.returncode == 1
    assert "another server running?" in done.stderr


# ---------------------------------------------------------------------------------------------------- how it ends


def test_told_to_end_it_lets_what_runs_end_and_another_takes_up_the_rest(start, tmp_path):
    server = start("--drain", "20")
    client = Client(server, held, max_instances=1)
    running = client.create(str(tmp_path / "running"), str(tmp_path / "gate"))
    client.wait_for(running, types_pb2.Running)
    waiting = [client.create(str(tmp_path / f"waiting-{number}")) for number in range(5)]
    watch = client.watch(waiting[-1])
    assert "serving" in command("status", "--health", server.health).stdout
    assert json.loads(command("status", "--health", server.health, "--json").stdout)["tasks_pending"] == 6
    assert page(server, "/healthz") == (200, "ok\n")

    os.kill(server.pid, signal.SIGTERM)
    until = time.monotonic() + 10
    while (answer := page(server, "/healthz"))[0] == 200 and time.monotonic() < until:
        time.sleep(0.02)
    assert answer == (503, "draining\n")
    with pytest.raises(grpc.RpcError, match="shutting down"):
        client.create("x")
    with pytest.raises(grpc.RpcError) as ended:
        list(watch)
    assert ended.value.code() is grpc.StatusCode.UNAVAILABLE
    (tmp_path / "gate").touch()
    assert server.process.wait(60) == 0
    assert not (tmp_path / "waiting-0").exists()
    assert command("status", "--health", server.health).returncode == 1

    server.start()
    assert client.end_of(running).status.state == types_pb2.Succeed
    assert [client.end_of(task).status.state for task in waiting] == [types_pb2.Succeed] * 5
    assert (tmp_path / "running").read_text() == "x"


def page(server: ServerProcess, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(server.health, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_killed_again_and_again_no_future_is_lost_and_none_gets_two_values(tmp_path, root):
    path = Path(__file__).parents[2] / "faults" / "server_kills.py"
    spec = importlib.util.spec_from_file_location("server_kills", path)
    kills = importlib.util.module_from_spec(spec)
    sys.modules["server_kills"] = kills
    spec.loader.exec_module(kills)
    told = kills.run(tmp_path, tasks=300, clients=2, kills=2, at_once=8, seed=7, root=root)
    assert (told["tasks"], told["kills"]) == (300, 2)
