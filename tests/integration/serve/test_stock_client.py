"""The public flamepy 0.6.0, unmodified, finds a Flame in ``flame-host serve``."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.integration, pytest.mark.timeout(300)]

PRELUDE = """
import json, os, sys, threading, time
import cloudpickle, flamepy
from flamepy.core.cache import ObjectKey, delete_objects, get_object, patch_object, put_object, update_object
from flamepy.core.cache import upload_object
from flamepy.runner import Runner, RunnerContext, RunnerRequest

def caught(work):
    try:
        return ["ok", repr(work())]
    except BaseException as error:
        return [type(error).__name__, str(error)]

def tell(**facts):
    print(json.dumps(facts))
"""


ERRORS = """
class Refuses:
    def __reduce__(self):
        raise RuntimeError("does not travel")

def work(kind):
    if kind == "raise":
        raise LookupError("no such thing as a unicorn")
    if kind == "exit":
        raise SystemExit(3)
    if kind == "die":
        os._exit(7)
    if kind == "result":
        return Refuses()
    return kind

class Broken:
    def __init__(self):
        raise ValueError("cannot be made")
    def call(self):
        return 1

with Runner("errors") as rr:
    service = rr.service(work)
    told = {kind: caught(lambda: service(kind).get()) for kind in ("raise", "exit", "die", "result", "fine")}
    told["load"] = caught(lambda: rr.service(Broken).call().get())
    broken = [s for s in flamepy.list_sessions() if s.application == "errors" and s.events]
    told["event"] = [[event.code, event.message] for event in broken[0].events][:1]
told["application"] = caught(lambda: flamepy.create_session("nobody"))
told["session"] = caught(lambda: flamepy.get_session("nobody"))
told["open"] = caught(lambda: flamepy.open_session("nobody"))
told["object"] = caught(lambda: get_object(flamepy.core.ObjectRef(os.environ["FLAME_CACHE_ENDPOINT"], "a/b/c", 1)))
schema = flamepy.ApplicationSchema(input="{", output=None, common_data=None)
told["schema"] = caught(lambda: flamepy.register_application("x", {"schema": schema}))
told["directory"] = caught(lambda: flamepy.register_application("x", {"working_directory": "here"}))
told["missing program"] = None
flamepy.register_application("no-program", {"command": "/nowhere/at/all"})
ssn = flamepy.create_session("no-program")
told["missing program"] = caught(lambda: ssn.invoke(b""))
told["in use"] = caught(lambda: flamepy.unregister_application("no-program"))
ssn.close()
told["closed"] = caught(lambda: ssn.create_task(b""))
told["closed open"] = caught(lambda: flamepy.open_session(ssn.id))
flamepy.unregister_application("no-program")
tell(**told)
"""


def test_failures_reach_the_stock_client_in_their_own_words(stock):
    told = stock("-c", PRELUDE + ERRORS)

    assert told["raise"][0] == "FlameError"
    assert "LookupError: no such thing as a unicorn" in told["raise"][1]
    assert "sys.exit(3)" in told["exit"][1]
    assert "exited with code 7" in told["die"][1]
    assert "does not travel" in told["result"][1]
    assert told["fine"] == ["ok", "'fine'"]
    assert "cannot be made" in told["load"][1]
    assert told["event"][0][0] == 1001
    assert "cannot be made" in told["event"][0][1]
    assert "application <nobody> not found" in told["application"][1]
    assert "session <nobody> not found" in told["session"][1]
    assert "session <nobody> not found" in told["open"][1]
    assert "object <a/b/c> not found" in told["object"][1]
    assert "invalid input schema" in told["schema"][1]
    assert "working_directory must be an absolute path" in told["directory"][1]
    assert "/nowhere/at/all" in told["missing program"][1]
    assert "open sessions" in told["in use"][1]
    assert "closed session" in told["closed"][1]
    assert "is not open" in told["closed open"][1]


def test_its_own_smoke_test_passes(stock):
    told = stock("-m", "flamepy.runner.e2e", "--json", "--tasks", "12")
    assert told["function_results"] == [number * number for number in range(12)]
    assert (told["chained_result"], told["stateful_result"]) == (313, 6)


APPLICATIONS = """
names = sorted(app.name for app in flamepy.list_applications())
run = flamepy.get_application("flmrun")
exec_ = flamepy.get_application("flmexec")
flamepy.register_application("mine", {"command": "/bin/true", "environments": {"A": "1"}, "labels": ["x"], "max_instances": 3})
mine = flamepy.get_application("mine")
again = caught(lambda: flamepy.register_application("mine", {}))
flamepy.unregister_application("mine")
tell(names=names, command=run.command, arguments=run.arguments, installer=run.installer, delay=run.delay_release, most=run.max_instances,
     schema=json.loads(exec_.schema.input)["required"], mine=[mine.command, mine.environments, mine.labels, mine.max_instances],
     again=again, gone=flamepy.get_application("mine"))
"""


def test_applications_are_as_a_cluster_has_them(stock):
    told = stock("-c", PRELUDE + APPLICATIONS)
    assert {"flmexec", "flmping", "flmrun"} <= set(told["names"])
    assert told["command"].endswith("/bin/uv")
    assert told["arguments"] == ["run", "--python", "python${FLAME_PYTHON_VERSION}", "python", "-m", "flamepy.runner.runpy"]
    assert (told["installer"], told["delay"], told["most"]) == ("python", 60, 1_000_000)
    assert told["schema"] == ["language", "code"]
    assert told["mine"] == ["/bin/true", {"A": "1"}, ["x"], 3]
    assert "already exists" in told["again"][1]
    assert told["gone"] is None


SESSIONS = """
import pathlib
program = pathlib.Path("service.py").absolute()
program.write_text('''
import os, time, flamepy
class Echo(flamepy.FlameService):
    def on_session_enter(self, context):
        self.data = context.common_data()
    def on_task_invoke(self, context):
        if context.input == b"fail":
            raise ValueError("as you wish")
        if context.input == b"none":
            return None
        if context.input.startswith(b"sleep"):
            time.sleep(float(context.input[5:]))
        return flamepy.TaskOutput(b"|".join([self.data or b"", context.task_id.encode(), context.input]))
    def on_session_leave(self):
        open(os.environ["LEFT"], "a").write("left ")
flamepy.run(Echo())
''')
left = program.with_name("left")
flamepy.register_application("echo", {"command": "python3", "arguments": [str(program)], "installer": "python",
                                      "environments": {"LEFT": str(left)}})
ssn = flamepy.create_session("echo", common_data=b"shared", session_id="echo-1", max_instances=2)
told = {"invoke": ssn.invoke(b"one").decode(), "none": repr(ssn.invoke(b"none")), "fail": caught(lambda: ssn.invoke(b"fail"))}
told["run"] = sorted(future.result().decode() for future in [ssn.run(b"%d" % number) for number in range(8)])
task = ssn.create_task(b"sleep0.4")
told["states"] = [update.state.name for update in ssn.watch_task(task.id)]
told["events"] = [[event.code, event.message] for event in ssn.get_task(task.id).events]
told["listed"] = [task.id for task in ssn.list_tasks()]
def attributes(most):
    return flamepy.SessionAttributes(id="echo-1", application="echo", min_instances=0, max_instances=most)
told["same"] = flamepy.open_session("echo-1", attributes(2)).id
told["other"] = caught(lambda: flamepy.open_session("echo-1", attributes(3)))
told["twice"] = caught(lambda: flamepy.create_session("echo", session_id="echo-1"))
now = flamepy.get_session("echo-1")
told["counts"] = [now.pending, now.running, now.succeed, now.failed]
told["executors"] = sum(executor.status.session_id == "echo-1" for executor in flamepy.list_executors())
told["nodes"] = len(flamepy.list_nodes())
long = ssn.create_task(b"sleep2")
time.sleep(0.5)
told["busy"] = caught(lambda: ssn.close())
list(ssn.watch_task(long.id))
ssn.close()
told["closed"] = flamepy.get_session("echo-1").state.name
deadline = time.monotonic() + 20
while not left.exists() and time.monotonic() < deadline:
    time.sleep(0.05)
told["left"] = left.read_text()
flamepy.unregister_application("echo")
ping = flamepy.create_session("flmping")
told["ping"] = json.loads(ping.invoke(json.dumps({"duration": 20, "memory": 1024}).encode()))["message"]
ping.close()
script = flamepy.create_session("flmexec")
code = {"language": "python", "code": "import sys; print(sys.stdin.read().upper())", "input": list(b"quiet")}
told["script"] = bytes(json.loads(script.invoke(json.dumps(code).encode()))["data"]).decode()
told["shell"] = bytes(json.loads(script.invoke(json.dumps({"language": "shell", "code": "echo $((6*7))"}).encode()))["data"]).decode()
told["script fails"] = caught(lambda: script.invoke(json.dumps({"language": "python", "code": "1/0"}).encode()))
script.close()
tell(**told)
"""


def test_sessions_tasks_and_watches_of_a_service_of_the_users(stock):
    told = stock("-c", PRELUDE + SESSIONS)
    assert told["invoke"] == "shared|1|one"
    assert told["none"] == "None"
    assert told["fail"] == ["FlameError", "as you wish (code: 3)"]
    assert told["run"] == sorted(f"shared|{number + 4}|{number}" for number in range(8))
    assert told["states"] == ["RUNNING", "SUCCEED"]
    assert [code for code, _ in told["events"]] == [0, 1, 2]
    assert told["listed"] == [str(number) for number in range(1, 13)]
    assert told["same"] == "echo-1"
    assert "max_instances differs" in told["other"][1]
    assert "already exists" in told["twice"][1]
    assert told["counts"] == [0, 0, 11, 1]
    assert told["executors"] in (1, 2)
    assert told["nodes"] == 1
    assert "running tasks" in told["busy"][1]
    assert told["closed"] == "CLOSED"
    assert "left" in told["left"]
    assert told["ping"].startswith("Completed on <")
    assert told["script"].strip() == "QUIET"
    assert told["shell"].strip() == "42"
    assert "ZeroDivisionError" in told["script fails"][1]


CACHE = """
import pathlib, pyarrow, pyarrow.flight
ref = put_object("app/ssn", {"a": 1})
told = {"put": [ref.version, get_object(ref)["a"]]}
ref = update_object(ref, [1])
ref = patch_object(ref, 2)
ref = patch_object(ref, 3)
told["patched"] = [ref.version, get_object(ref, lambda base, deltas: base + deltas)]
ref = patch_object(ref, 4)
told["only the new patch"] = get_object(ref, lambda base, deltas: base + deltas)
told["not modified"] = get_object(ref, lambda base, deltas: base + deltas)
table = pyarrow.table({"x": [1, 2, 3]})
stored = put_object("app/ssn", table)
told["table"] = get_object(stored).equals(table)
told["table patch"] = caught(lambda: patch_object(stored, 1))
file = pathlib.Path("big.bin")
file.write_bytes(os.urandom(5 << 20))
up = upload_object("app/pkg/big.bin", str(file))
# Its own download_object reads the stream in a way that no pyarrow has; what it asks for is asked here.
rows = pyarrow.flight.connect(up.endpoint).do_get(pyarrow.flight.Ticket(f"{up.key}:0".encode())).read_all()
told["file"] = [up.key, file.read_bytes() == b"".join(rows["data"].to_pylist())]
other = put_object("app/other", 1)
delete_objects("app/ssn")
told["deleted"] = caught(lambda: get_object(ref))[0]
told["kept"] = get_object(other)
delete_objects("app/*")
told["all"] = caught(lambda: get_object(other))[0]
tell(**told)
"""


def test_the_object_cache_versions_patches_and_deletes(stock):
    told = stock("-c", PRELUDE + CACHE)
    assert told["put"] == [1, 1]
    assert told["patched"] == [4, [1, 2, 3]]
    assert told["only the new patch"] == told["not modified"] == [1, 2, 3, 4]
    assert told["table"] is True
    assert "takes no patches" in told["table patch"][1]
    assert told["file"] == ["app/pkg/big.bin", True]
    assert told["deleted"] == told["all"] != "ok"
    assert told["kept"] == 1


RUNNERS = """
def where(n):
    import iniconfig, flamepy
    return [n, iniconfig.__name__, flamepy.__version__]

def outer(depth):
    from flamepy.runner import Runner
    def inner(n):
        return n + 1
    with Runner("nested-inner") as rr:
        return rr.service(inner)(depth).get()

class Counter:
    def __init__(self):
        self.count = 0
    def add(self, n):
        self.count += n
        return self.count

def big(n):
    import pyarrow
    return pyarrow.table({"x": list(range(n))})

with Runner("with-dependency", dependencies=["iniconfig"]) as rr:
    told = {"dependency": rr.service(where)(1).get()}
    told["nested"] = rr.service(outer)(41).get()
    counter = rr.service(Counter())
    futures = [counter.add(1) for _ in range(20)]
    told["counter"] = rr.get(futures)
    told["reference"] = counter.add(counter.add(0)).get()
    shared = rr.put_object([5, 6])
    def total(values):
        return sum(values)
    told["shared"] = rr.service(total)(shared).get()
    told["table"] = rr.service(big)(1000).get().num_rows
    told["large"] = len(rr.service(lambda n: b"x" * n)(6 << 20).get())
tell(**told)
"""


def test_runners_with_dependencies_state_and_runners_inside(stock):
    told = stock("-c", PRELUDE + RUNNERS)
    assert told["dependency"][:2] == [1, "iniconfig"]
    assert told["dependency"][2].startswith("0.6")
    assert told["nested"] == 42
    assert told["counter"] == list(range(1, 21))
    assert told["reference"] == 40
    assert (told["shared"], told["table"], told["large"]) == (11, 1000, 6 << 20)


CROWD = """
me = sys.argv[1]
def job(n):
    return n * 3
ssn = flamepy.create_session("flmrun", cloudpickle.dumps(RunnerContext(execution_object=job)))
futures = [ssn.run(cloudpickle.dumps(RunnerRequest(args=(n,)))) for n in range(40)]
values = [get_object(flamepy.core.ObjectRef.decode(future.result())) for future in futures]
ssn.close()
tell(right=values == [n * 3 for n in range(40)])
"""


def test_sixteen_clients_at_once_each_get_their_own(stock, server):
    with ThreadPoolExecutor(16) as pool:
        told = list(pool.map(lambda number: stock("-c", PRELUDE + CROWD, str(number)), range(16)))
    assert told == [{"right": True}] * 16
    assert "ERROR" not in server.log.read_text()
