"""Users' own services behind the Instance service: real processes, driven over the real socket by the simulated manager."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flame_host.testing.executor_manager import BindError, Registration

SERVICE = """
import os, sys, time
from flame_host.wire.instance import serve

class Output:
    def __init__(self, data):
        self.data = data

class Service:
    def on_session_enter(self, context):
        self.told = context
        if context.common_data() == b"refuse":
            return False
        if context.common_data() == b"raise":
            raise ValueError("no such model")
        if context.common_data() == b"exit":
            sys.exit("cannot start")

    def on_task_invoke(self, context):
        data = context.input
        if data is None:
            return None
        if data.startswith(b"raise"):
            raise KeyError("missing " + "é" * 100_000)
        if data == b"exit":
            sys.exit(3)
        if data == b"die":
            os._exit(5)
        if data == b"hang":
            time.sleep(3600)
        if data == b"spin":
            while True:
                pass
        if data == b"type":
            return "text"
        if data == b"big":
            return b"x" * (5 << 20)
        if data == b"whoami":
            app = self.told.application
            return Output(repr((context.task_id, context.session_id, app.name, app.url, app.image, app.working_directory)).encode())
        if data == b"environment":
            return repr({k: v for k, v in os.environ.items() if k.startswith("FLAME") or k in ("TMPDIR", "KEY")}).encode()
        return Output(memoryview(data))

    def on_session_leave(self):
        print("left", flush=True)
        if self.told.common_data() == b"stubborn":
            raise RuntimeError("I do not want to leave")

serve(Service())
"""


def test_without_an_endpoint_the_entrypoint_says_what_is_missing_and_exits_with_2(tmp_path):
    environment = {key: value for key, value in os.environ.items() if key != "FLAME_INSTANCE_ENDPOINT"}
    done = subprocess.run([sys.executable, "-m", "flame_host"], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=30)
    assert done.returncode == 2
    assert "FLAME_INSTANCE_ENDPOINT is not set" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("path", "words"),
    [("/tmp/" + "x" * 200, "200 bytes|205 bytes"), ("/no/such/directory/a.sock", "there is no directory"), ("/etc/hostname", "no socket")],
)
def test_an_endpoint_no_socket_can_be_made_at_is_refused_with_the_reason(tmp_path, path, words):
    if path == "/etc/hostname":
        path = str(tmp_path / "file")
        Path(path).write_text("precious")
    environment = {**os.environ, "FLAME_INSTANCE_ENDPOINT": path}
    done = subprocess.run([sys.executable, "-m", "flame_host"], capture_output=True, text=True, env=environment, cwd=tmp_path, timeout=30)
    assert done.returncode == 2
    assert any(word in done.stderr for word in words.split("|"))
    assert not os.path.isfile(path) or Path(path).read_text() == "precious"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"refuse", "Service.on_session_enter returned False"),
        (b"raise", "ValueError: no such model"),
        (b"exit", "SystemExit: cannot start"),
    ],
)
def test_a_session_that_cannot_be_entered_says_why(manager, program, data, words):
    with pytest.raises(BindError, match=words) as caught:
        manager.bind(program(SERVICE), "session", data)
    assert caught.value.code == 12


def test_a_program_that_ends_before_it_is_ready_is_no_riddle(manager, program):
    with pytest.raises(BindError, match="No module named") as caught:
        manager.bind(program("import no_such_module"), "session")
    assert caught.value.code == 11
    with pytest.raises(BindError, match="cannot start"):
        manager.bind(Registration(command="/no/such/program"), "session")


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"raise", "KeyError: 'missing éé"),
        (b"exit", "SystemExit: 3"),
        (b"type", "on_task_invoke returned str"),
        (b"big", "put it into the cache and return its reference"),
    ],
)
def test_a_task_that_fails_says_why_and_the_next_one_runs(manager, program, data, words):
    binding = manager.bind(program(SERVICE), "session")
    failed = binding.invoke(data)
    assert failed.code != 0
    assert failed.status == ""
    assert words in failed.message
    assert len(failed.message) < 70_000
    assert failed.output is None
    assert binding.invoke(b"next").output == b"next"


def test_a_message_over_the_clusters_limit_fails_that_task_only(sockets, program):
    from flame_host.testing.executor_manager import ExecutorManager

    with ExecutorManager(sockets, limit=-1) as manager:
        binding = manager.bind(program(SERVICE), "session")
        refused = binding.invoke(b"x" * (5 << 20))
        assert refused.status == "RESOURCE_EXHAUSTED"
        largest = b"x" * ((4 << 20) - (64 << 10))
        assert binding.invoke(largest).output == largest


def test_empty_and_absent_inputs_are_different_things(manager, program):
    binding = manager.bind(program(SERVICE), "session")
    assert binding.invoke(b"").output == b""
    assert binding.invoke(None).output is None


def test_a_process_that_dies_in_a_task_shows_as_a_broken_call(manager, program):
    binding = manager.bind(program(SERVICE), "session")
    assert binding.invoke(b"die").status == "UNAVAILABLE"
    assert binding.unbind().return_code == 5


@pytest.mark.parametrize("data", [b"hang", b"spin"])
def test_sigterm_ends_a_service_that_is_in_the_middle_of_an_endless_task(manager, program, data):
    binding = manager.bind(program(SERVICE), "session")
    assert binding.invoke(data, timeout=0.3).status == "DEADLINE_EXCEEDED"
    manager.leave_seconds = 0.2  # with a task under way nobody answers
    ending = binding.unbind()
    assert not ending.killed
    assert ending.seconds < 6


def test_leaving_is_answered_with_0_even_when_the_service_refuses(manager, program):
    binding = manager.bind(program(SERVICE), "session", b"stubborn")
    ending = binding.unbind()
    assert (ending.leaves, ending.return_code, ending.killed, ending.socket_left) == (1, 0, False, False)
    assert "I do not want to leave" in ending.stderr


def test_a_service_is_told_who_it_is_and_where(manager, program, sockets):
    registration = program(SERVICE, url="file:///package.tar.gz", environments={"KEY": "$FLAME_TEST_BASE/x:$NOTHING"})
    manager._environment["FLAME_TEST_BASE"] = "base"
    binding = manager.bind(registration, "my-session")
    assert binding.invoke(b"whoami").output == repr(("1", "my-session", "service", "file:///package.tar.gz", None, None)).encode()
    environment = eval(binding.invoke(b"environment").output)
    assert environment["FLAME_INSTANCE_ENDPOINT"] == str(sockets / f"{binding.executor_id}.sock")
    assert environment["FLAME_ENDPOINT"] == "http://127.0.0.1:8080"
    assert environment["KEY"] == "base/x:$NOTHING"
    assert environment["TMPDIR"].endswith("work/service/tmp")
    assert binding.unbind().stdout == "left\n"


@pytest.mark.slow
def test_the_socket_file_never_stands_there_unanswered(program, sockets):
    """A manager connects once, as soon as the path exists; here twenty processes are watched at that moment."""
    registration = program(SERVICE)
    refusals = []

    def watch(number: int) -> None:
        path = sockets / f"{number}.sock"
        environment = {**os.environ, "FLAME_INSTANCE_ENDPOINT": str(path)}
        process = subprocess.Popen([registration.command, *registration.arguments], env=environment)
        while not path.exists():
            time.sleep(0)
        try:
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(str(path))
        except OSError as error:
            refusals.append(error)
        process.terminate()
        process.wait(10)

    for group in range(4):
        threads = [threading.Thread(target=watch, args=(5 * group + number,)) for number in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert refusals == []


def test_a_stale_socket_of_a_process_long_gone_is_replaced(program, sockets):
    path = sockets / "stale.sock"
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(path))
    inode = path.stat().st_ino
    registration = program(SERVICE)
    process = subprocess.Popen(
        [registration.command, *registration.arguments], env={**os.environ, "FLAME_INSTANCE_ENDPOINT": f"unix://{path}"}
    )
    deadline = time.monotonic() + 20
    while path.stat().st_ino == inode and time.monotonic() < deadline:
        time.sleep(0.005)
    assert path.stat().st_ino != inode
    process.terminate()
    assert process.wait(10) == 0


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_a_service_whose_manager_was_gone_before_it_began_does_not_wait_for_ever(program, sockets):
    registration = program(SERVICE)
    path = sockets / "orphan.sock"
    script = f"sleep 0.2; exec {registration.command} {registration.arguments[0]}"
    environment = {**os.environ, "FLAME_INSTANCE_ENDPOINT": str(path)}
    subprocess.run(["/bin/sh", "-c", f"({script}) >/dev/null 2>&1 & echo $!"], env=environment, check=True, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 20
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    assert path.exists()
    deadline = time.monotonic() + 90
    while path.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not path.exists()


SDK_SERVICE = """
import flamepy
from flamepy.service import FlameService, TaskOutput

class Greeter(FlameService):
    def on_session_enter(self, context):
        self.greeting = context.common_data()

    def on_task_invoke(self, context):
        if context.input == "nobody":
            raise LookupError("nobody to greet")
        return TaskOutput(f"{self.greeting}, {context.input}")

    def on_session_leave(self):
        print("bye", flush=True)

flamepy.run(Greeter())
"""


def test_a_service_written_with_the_sdk_is_served_by_flamepy_run(manager, program):
    import pickle

    binding = manager.bind(program(SDK_SERVICE), "session", pickle.dumps("hello"))
    assert "LookupError: nobody to greet" in binding.invoke(pickle.dumps("nobody")).message
    assert pickle.loads(binding.invoke(pickle.dumps("world")).output) == "hello, world"
    assert binding.unbind().stdout == "bye\n"
