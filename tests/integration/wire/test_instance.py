"""The journey through a cluster: our entrypoint as the application process, driven over the real socket with real processes."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flame_host.api import ObjectRef, PackageRef, Payload, Plan
from flame_host.testing.executor_manager import BindError, ExecutorManager, Registration, descendants
from flame_host.wire.envelope import CallOrder, SessionOrder, decode_outcome, encode_call, encode_session, plan_digest
from flame_host.wire.outcomes import OUTPUT_LIMIT, ReturnCode, split_report


def add(a, b=0):
    return a + b


class Counter:
    def __init__(self, initial=0):
        self.count = initial

    def add(self, amount):
        self.count += amount
        return self.count

    def die(self):
        os._exit(1)


def perform(what, argument=None):
    """Every way a task can end."""
    if what == "value":
        return argument
    if what == "raise":
        raise ValueError("the price is negative: " + str(argument))
    if what == "exit":
        sys.exit(argument)
    if what == "os exit":
        os._exit(argument)
    if what == "signal":
        os.kill(os.getpid(), argument)
        time.sleep(60)
    if what == "hang":
        while True:
            pass
    if what == "unpicklable":
        return {"lock": threading.Lock()}
    if what == "yield":
        return (number for number in range(1000))
    if what == "print":
        print("printed by the task")
        sys.stderr.write("told by the task\n")
    return os.getpid()


# ---------------------------------------------------------------------------------------------------- what cannot be entered


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, "common data is nothing; it must hold the execution object"),
        (b"", "common data is nothing"),
        (b"just text", "common data is unknown"),
        (b"FLH1", "damaged envelope"),
        (b"FLH1\xff\xff\xff\x7f{}", "damaged envelope"),
        (b"\x80\x05N.", "SerializationError|common data holds a NoneType where a RunnerContext belongs"),
    ],
)
def test_common_data_of_no_known_form_fails_the_enter_and_says_so(client, data, words):
    with pytest.raises(BindError) as caught:
        client.manager.bind(Registration(), "session", data)
    assert any(word in caught.value.message for word in words.split("|"))
    assert caught.value.code == 12


def test_a_plan_this_host_cannot_keep_is_refused_with_everything_that_is_missing(client):
    plan = Plan(installer="conda", serializers=("arrow/1",), cache="redis")
    with pytest.raises(BindError) as caught:
        client.open(add, plan=plan)
    for word in ("conda", "arrow", "redis"):
        assert word in caught.value.message


def test_a_host_that_denies_pickles_refuses_them_before_a_worker_starts(client):
    client.manager._environment["FLAME_HOST_POLICY"] = "pickle=deny"
    with pytest.raises(BindError, match="pickle = deny"):
        client.open(add)


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("file:///no/such/package.tar.gz", "PackageNotFoundError"),
        ("gopher://host/package.tar.gz", "gopher"),
    ],
)
def test_a_package_that_cannot_be_fetched_fails_the_enter_with_stage_and_application(client, url, words):
    with pytest.raises(BindError, match=words) as caught:
        client.open(add, url=url)
    assert "application app" in caught.value.message


def test_a_package_other_than_the_one_published_is_refused(client, package):
    url = package()
    reference = PackageRef(url, "0" * 64, 0, "tar.gz")
    with pytest.raises(BindError, match="DigestMismatchError"):
        client.open(add, package=reference)


def test_a_dependency_that_does_not_exist_shows_the_installers_own_words(client):
    with pytest.raises(BindError) as caught:
        client.open(add, dependencies=("leanpad==99",), env={"UV_OFFLINE": "1"})
    assert "leanpad==99" in caught.value.message
    assert "InstallError" in caught.value.message


def test_an_object_whose_module_is_not_in_the_package_fails_the_enter_with_the_import_error(client):
    payload = Payload("cloudpickle/1", b"cno_such_module\nThing\n.")
    with pytest.raises(BindError, match="No module named 'no_such_module'"):
        client.manager.bind(Registration(), "session", encode_session(SessionOrder(payload)))


def test_a_wrong_setting_of_the_operator_is_told_when_a_session_comes(client):
    for variable in ("FLAME_TASK_TIMEOUT", "FLAME_HOST_SURPRISE"):
        with pytest.raises(BindError, match=variable):
            client.open(add, env={variable: "soon"})


# ---------------------------------------------------------------------------------------------------- how tasks end


@pytest.mark.parametrize(
    ("what", "argument", "code", "words"),
    [
        ("raise", 7, ReturnCode.RAISED, "ValueError: the price is negative: 7"),
        ("exit", 3, ReturnCode.EXITED, "sys.exit(3)"),
        ("os exit", 4, ReturnCode.WORKER, "exited with code 4"),
        ("signal", signal.SIGKILL, ReturnCode.WORKER, "SIGKILL"),
        ("signal", signal.SIGSEGV, ReturnCode.WORKER, "SIGSEGV"),
        ("hang", None, ReturnCode.TIMED_OUT, "ran longer than 0.5 s"),
        ("unpicklable", None, ReturnCode.BAD_PAYLOAD, "the result cannot travel"),
        ("yield", None, ReturnCode.FAILED, "return a list"),
    ],
)
def test_a_task_that_ends_badly_says_why_and_the_next_one_runs(client, what, argument, code, words):
    binding = client.open(perform, env={"FLAME_TASK_TIMEOUT": "0.5"})
    failed = client.send(binding, what, argument)
    assert words in failed.message
    assert (failed.code, failed.status, failed.output) == (code, "", None)
    assert client.call(binding, "value", "fine") == "fine"


def test_after_a_crash_another_worker_runs_the_next_task(client):
    binding = client.open(perform)
    before = client.call(binding, "pid")
    assert "exited" in client.send(binding, "os exit", 1).message
    after = client.call(binding, "pid")
    assert before != after
    assert not Path(f"/proc/{before}").exists()


def test_the_sessions_own_time_limit_and_the_operators_are_both_kept(client):
    binding = client.open(perform, timeout=0.3, env={"FLAME_TASK_TIMEOUT": "60"})
    assert "longer than 0.3 s" in client.send(binding, "hang").message


def test_a_traceback_shows_the_users_frames_and_none_of_ours(client):
    message = client.send(client.open(perform), "raise", 1).message
    assert "in perform" in message
    assert "flame_host/worker" not in message


def test_a_client_that_asks_for_it_gets_the_workers_own_report(client):
    binding = client.open(perform)
    text, report = split_report(client.send(binding, "raise", 1, reports=True).message)
    assert text.endswith("ValueError: the price is negative: 1")
    length = int.from_bytes(report[:4], "little")
    error = client.serializer.loads(report[4 + length :])
    assert (type(error), error.args) == (ValueError, ("the price is negative: 1",))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "input is nothing"), (None, "input is nothing"), (b"\x80\x05N.", "a bare pickle"), (b"FLH1\0\0\0\0", "damaged envelope")],
)
def test_an_input_that_is_no_call_fails_that_task_only(client, data, words):
    binding = client.open(add)
    assert words in binding.invoke(data).message
    assert client.call(binding, 1, 3) == 4


def test_a_call_made_under_another_plan_or_format_is_not_read(client):
    binding = client.open(add)
    other = CallOrder(client.payload(((1,), {})), plan=plan_digest(Plan(cache="other")))
    assert "was made under plan" in binding.invoke(encode_call(other)).message
    foreign = CallOrder(Payload("arrow/1", b""))
    assert "FormatNotAllowedError" in binding.invoke(encode_call(foreign)).message


def test_a_stateful_service_that_lost_its_worker_does_not_pretend_to_remember(client):
    binding = client.open(Counter(10), stateful=True)
    assert client.call(binding, 1, method="add") == 11
    assert "state" in client.send(binding, method="die").message
    assert "StateLostError" in client.send(binding, 1, method="add").message


# ---------------------------------------------------------------------------------------------------- the journey


def test_a_function_is_called_with_and_without_keywords(client):
    binding = client.open(add)
    assert client.call(binding, 1, 3) == 4
    assert client.call(binding, 1, b=5) == 6


def test_a_class_is_instantiated_once_and_keeps_its_state(client):
    binding = client.open(Counter, instantiate=True, stateful=True)
    client.call(binding, 1, method="add")
    assert client.call(binding, 3, method="add") == 4


def test_an_instance_keeps_the_state_it_came_with(client):
    binding = client.open(Counter(10), stateful=True)
    client.call(binding, 1, method="add")
    assert client.call(binding, 3, method="add") == 14


@pytest.mark.parametrize("told", ["url", "reference"])
def test_an_archive_with_a_dependency_is_fetched_installed_and_called(client, package, told):
    url = package()

    def label(text):
        import shop

        return shop.label(text), shop.where()

    if told == "url":
        binding = client.open(label, url=url)
    else:
        digest = hashlib.sha256((client.directory / "project.tar.gz").read_bytes()).hexdigest()
        binding = client.open(label, package=PackageRef(url, digest, 0, "tar.gz"))
    text, prefix = client.call(binding, "mug")
    assert text == "<mug>"
    assert prefix != sys.prefix


def test_a_result_over_the_message_limit_travels_by_reference_and_a_smaller_one_inline(client):
    binding = client.open(lambda size: b"x" * size)
    for size, kind in ((1 << 20, Payload), (OUTPUT_LIMIT - 5000, Payload), (OUTPUT_LIMIT, ObjectRef), (64 << 20, ObjectRef)):
        answer = client.send(binding, size)
        assert answer.ok, answer
        content = decode_outcome(answer.output).content
        assert type(content) is kind
        assert client.value(content) == b"x" * size


def test_references_in_a_call_are_read_from_the_cache_by_the_host(client, root):
    store = client.catalog.cache("local").open((root / "objects").as_uri())
    ref = store.put("app/shared", client.payload(list(range(10))))

    class Marker:
        pass

    binding = client.open(sum)
    data = client.serializer.dumps(((Marker(),), {}), reference=lambda value: 0 if type(value) is Marker else None)
    answer = binding.invoke(encode_call(CallOrder(Payload("cloudpickle/1", data), references=(ref,))))
    assert client.value(decode_outcome(answer.output).content) == 45


def test_common_data_too_large_for_a_message_stands_in_the_cache(client, root):
    store = client.catalog.cache("local").open((root / "objects").as_uri())
    table = b"t" * (8 << 20)
    ref = store.put("app/shared", client.payload(lambda: len(table)))
    binding = client.manager.bind(Registration(), "session", encode_session(SessionOrder(ref)))
    assert client.call(binding) == 8 << 20


def test_a_cache_no_plugin_serves_fails_only_what_needs_it(sockets, root, client):
    with ExecutorManager(sockets, environment=client.manager._environment, cache="memcached://127.0.0.1:1") as manager:
        client.manager = manager
        binding = client.open(lambda size: b"x" * size)
        assert "no plugin serves the cache memcached://127.0.0.1:1" in client.send(binding, 8 << 20).message
        assert client.call(binding, 10) == b"x" * 10


def test_what_tasks_print_goes_where_the_manager_keeps_logs(client):
    binding = client.open(perform)
    client.call(binding, "print")
    ending = binding.unbind()
    assert "printed by the task\n" in ending.stdout
    assert "told by the task\n" in ending.stderr


def test_tasks_see_the_cluster_and_may_use_it_themselves(client):
    binding = client.open(lambda: {key: os.environ.get(key) for key in ("FLAME_ENDPOINT", "FLAME_SESSION")}, session="mine")
    assert client.call(binding) == {"FLAME_ENDPOINT": "http://127.0.0.1:8080", "FLAME_SESSION": "mine"}


# ---------------------------------------------------------------------------------------------------- nothing stays behind


@pytest.mark.parametrize("how", ["idle", "in a task"])
def test_sigterm_ends_host_and_workers_in_time(client, how):
    binding = client.open(perform)
    worker = client.call(binding, "pid")
    below = set(descendants(binding.pid))
    assert worker in below
    if how == "in a task":
        assert binding.invoke(encode_call(CallOrder(client.payload((("hang",), {})))), timeout=0.5).status == "DEADLINE_EXCEEDED"
    client.manager.leave_seconds = 0.2  # with a task under way nobody answers
    ending = binding.unbind()
    assert (ending.killed, ending.socket_left) == (False, False)
    assert ending.seconds < 5
    deadline = time.monotonic() + 3
    while any(Path(f"/proc/{pid}").exists() for pid in below) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert [pid for pid in below if Path(f"/proc/{pid}").exists()] == []


def test_killing_the_host_takes_its_workers_along(client):
    binding = client.open(perform)
    worker = client.call(binding, "pid")
    os.kill(binding.pid, signal.SIGKILL)
    deadline = time.monotonic() + 3
    while Path(f"/proc/{worker}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{worker}").exists()


def test_a_manager_that_is_killed_leaves_no_host_and_no_worker(sockets, root):
    """As in the cluster: nobody is left to send SIGTERM."""
    program = """
import os, sys, time
from pathlib import Path
from flame_host.testing.executor_manager import ExecutorManager, Registration, descendants
binding = ExecutorManager(Path(sys.argv[1])).bind(Registration(), "session", bytes.fromhex(sys.argv[2]))
print(binding.pid, *descendants(binding.pid), flush=True)
time.sleep(60)
"""
    order = encode_session(SessionOrder(Payload("cloudpickle/1", b"cbuiltins\nlen\n.")))
    environment = {**os.environ, "FLAME_HOST_ROOT": str(root)}
    manager = subprocess.Popen([sys.executable, "-c", program, str(sockets), order.hex()], stdout=subprocess.PIPE, env=environment)
    pids = [int(pid) for pid in manager.stdout.readline().split()]
    assert len(pids) >= 2
    manager.kill()
    manager.wait()
    manager.stdout.close()
    deadline = time.monotonic() + 8
    while any(_alive(pid) for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [pid for pid in pids if _alive(pid)] == []
    assert list(sockets.glob("*.sock")) == []
    for directory in sockets.iterdir():  # nobody is left to remove it either
        shutil.rmtree(directory)


def _alive(pid: int) -> bool:
    """A process nobody waits for stays as a zombie where nothing reaps orphans; it is gone all the same."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_manager_that_enters_and_leaves_one_process_again_and_again_finds_no_leak(client):
    """Real managers do not; but what a session leaves behind adds up where it can be counted: in one process."""
    from flame_host.wire.client import InstanceClient
    from flame_host.wire.contexts import ApplicationContext

    binding = client.open(add)
    order = encode_session(SessionOrder(client.payload(add)))

    def standing() -> tuple[int, int]:
        return len(os.listdir(f"/proc/{binding.pid}/fd")), len(os.listdir(f"/proc/{binding.pid}/task"))

    with InstanceClient(binding.socket) as extra:
        for number in range(30):
            assert extra.enter("session", ApplicationContext("app"), order).ok
            assert client.call(binding, number, 1) == number + 1
            assert extra.leave().ok
            if number == 4:
                first = standing()
        # A thread that has been told to end may still be ending, and gRPC's own come and go; a leak would be 25 by now.
        deadline = time.monotonic() + 10
        while not all(now <= then for now, then in zip(standing(), first, strict=True)) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert all(now <= then + 2 for now, then in zip(standing(), first, strict=True)), (first, standing())


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_hundred_sessions_in_a_row_leave_nothing_behind(client, sockets, root):
    def standing() -> dict[str, int]:
        return {
            "descriptors": len(os.listdir("/proc/self/fd")),
            "processes": len(list(descendants(os.getpid()))),
            "sockets": len(list(sockets.iterdir())),
            "root": sum(1 for _ in root.rglob("*")),
            "temporary": len(list((client.directory / "tmp").iterdir())),
        }

    (client.directory / "tmp").mkdir()
    first: dict[str, int] = {}
    for number in range(200):
        binding = client.open(add, session=f"row-{number}", env={"TMPDIR": str(client.directory / "tmp")})
        assert client.call(binding, number, 1) == number + 1
        ending = binding.unbind()
        assert (ending.killed, ending.return_code, ending.socket_left) == (False, 0, False)
        if number == 4:
            first = standing()
    assert standing() == first


@pytest.mark.slow
def test_hosts_that_provision_one_package_at_once_install_it_once(sockets, client, package, tmp_path):
    url = package("fresh.tar.gz")

    def label(text):
        import shop

        return shop.label(text), shop.where()

    fresh = tmp_path / "fresh-root"
    client.manager._environment["FLAME_HOST_ROOT"] = str(fresh)
    answers: list[object] = []

    def work(number: int) -> None:
        try:
            answers.append(client.call(client.open(label, url=url, session=f"s{number}"), "mug"))
        except BaseException as error:
            answers.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(answers)) == 1, answers
    assert answers[0][0] == "<mug>"
    for kind in ("trees", "envs"):
        made = [path for path in (fresh / kind).iterdir() if not path.name.startswith(".") and path.is_dir()]
        assert len(made) == 1, made
